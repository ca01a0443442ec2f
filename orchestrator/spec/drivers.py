"""What the drivers that come with Muster can be told.  Of any other driver only its nodes know."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationInfo

from .fields import mistake, mistakes

#: The drivers that come with Muster, none of which takes any config, and what to say to who tries.
DRIVERS: Mapping[str, str] = {
    "process": "The driver process takes no config; task.run_as names a user."
}


def checked_config(config: dict[str, str], info: ValidationInfo) -> dict[str, str]:
    """*config*, when the driver can use it or is none that comes with Muster."""
    why = DRIVERS.get(info.data.get("driver", ""))
    if why is not None and config:
        hint = f"Leave it out. {why}"
        raise mistakes({key: mistake(f"is an unknown field {key!r}", hint) for key in config})
    return config
