"""What the drivers that come with Muster can be told.  Of any other driver only its nodes know."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, ValidationInfo
from pydantic_core import PydanticCustomError

from .fields import mistake, mistakes


class DriverConfig(BaseModel):
    """The config of a task for one driver: a subclass's fields, and what to say of any other."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", strict=True)


class ProcessConfig(DriverConfig):
    """The driver process takes no config: a task runs as the user that the agent runs as."""


DRIVERS: Mapping[str, type[DriverConfig]] = {"process": ProcessConfig}


def checked_config(config: dict[str, str], info: ValidationInfo) -> dict[str, str]:
    """*config*, when the driver can use all of it or is none that comes with Muster."""
    kind = DRIVERS.get(info.data.get("driver", ""))
    if kind is None:
        return config
    known = list(kind.model_fields)
    if unknown := [key for key in config if key not in known]:
        raise mistakes({key: _unknown(key, known, kind.__doc__ or "") for key in unknown})
    kind.model_validate(config)
    return config


def _unknown(key: str, known: list[str], otherwise: str) -> PydanticCustomError:
    near = get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else f"Leave it out. {otherwise}"
    return mistake(f"is an unknown field {key!r}", hint)
