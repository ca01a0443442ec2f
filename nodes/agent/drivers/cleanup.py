"""Ends and removes what tasks leave behind: processes without a supervisor, directories."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
import uuid
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

from ..logs import KEPT_FOR
from ..process_tree import kill_user

log = logging.getLogger(__name__)

#: What does not die of KILL within so many seconds, since it waits for a device, is left.
_PATIENCE = 1.0
#: Directories are removed together with all that are discarded within so many seconds.
_REMOVE_AFTER = 1.0


def kill_group(handle: str) -> None:
    """Kill the process of *handle*, if it is still that process, and its group."""
    pid, ticks, _ = (int(word) for word in handle.split(":"))
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()
        if int(stat[19]) == ticks:
            os.killpg(pid, signal.SIGKILL)


def kill_those_at(homes: Set[Path], users: range | None = None) -> None:
    """Kill every process that was begun with one of *homes* or is there, until there is none.

    And all of those of *users* whose they are: these may have gone elsewhere.
    """
    for uid in _owners(homes):
        if users is not None and uid in users:
            kill_user(uid)
    paths = {os.fsencode(it) for home in homes for it in (home, home.resolve())}
    until = time.monotonic() + _PATIENCE
    while left := [pid for pid in _at(paths) if _kill(pid)]:
        if time.monotonic() > until:
            log.warning("killed, and not dead yet: processes %s", left)
            return
        time.sleep(0.002)


def _owners(homes: Set[Path]) -> set[int]:
    found = set()
    for home in homes:
        with contextlib.suppress(OSError):
            found.add(home.stat(follow_symlinks=False).st_uid)
    return found


def _at(paths: Set[bytes]) -> Iterator[int]:
    variables = {b"HOME=" + path for path in paths}
    for process in os.listdir("/proc") if paths else ():  # noqa: PTH208  Quicker.
        with contextlib.suppress(OSError):  # It is over, or another user's.
            if process.isdigit() and (
                os.fsencode(os.readlink(f"/proc/{process}/cwd")) in paths  # noqa: PTH115
                or not variables.isdisjoint(
                    Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
                )
            ):
                yield int(process)


def _kill(pid: int) -> bool:
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


class Removal:
    """Directories that are removed soon, in a thread."""

    def __init__(self) -> None:
        self._directories: list[Path] = []
        self._due: asyncio.TimerHandle | None = None

    def soon(self, directory: Path) -> None:
        """Remove *directory*: many at once, as a thread costs more than a removal."""
        self._directories.append(directory)
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(_REMOVE_AFTER, self._remove)

    def of_old(self, work: Path, kept: Set[str]) -> None:
        """Remove what an agent left in *work* that died amid discarding, but what is *kept*."""
        long_ago = time.time() - KEPT_FOR
        for directory in work.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if directory.name not in kept and directory.stat().st_mtime < long_ago:
                    self.soon(directory)

    def close(self) -> None:
        """Begin to remove what waits for it."""
        if self._due is not None:
            self._due.cancel()
            self._remove()

    def _remove(self) -> None:
        self._due = None
        directories, self._directories = self._directories, []
        asyncio.get_running_loop().run_in_executor(None, remove, directories)


def remove(directories: Iterable[Path]) -> None:
    """Remove these directories with all that is in them and is ours to remove."""
    for directory in directories:
        try:
            directory.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            _remove_tree(directory)


def _remove_tree(top: Path) -> None:
    """Remove *top*, however deep it is and whatever tasks have forbidden us there.

    Directories are moved up to *top* before they are looked into: no path grows too long.
    """
    left = [str(top)]
    while left:
        directory = left.pop()
        with contextlib.suppress(OSError):
            os.chmod(directory, 0o700)  # noqa: PTH101
            with os.scandir(directory) as found:
                entries = list(found)
            for entry in entries:
                with contextlib.suppress(OSError):
                    if not entry.is_dir(follow_symlinks=False):
                        os.unlink(entry.path)  # noqa: PTH108
                    elif directory == str(top):
                        left.append(entry.path)
                    else:
                        os.chmod(entry.path, 0o700)  # noqa: PTH101
                        moved = f"{top}/{uuid.uuid4().hex}"
                        os.rename(entry.path, moved)  # noqa: PTH104
                        left.append(moved)
            if directory != str(top):
                os.rmdir(directory)  # noqa: PTH106
    with contextlib.suppress(OSError):
        top.rmdir()
