"""How much of the disk a task's directory takes, seen at little cost.  Part of the supervisor.

What holds: a file is counted by the end of the look that begins after it was written, unless it is
moved in step with that look, or deleted.  A directory that is renamed where it is, or is hard to
open, does not hide what is in it; a directory that comes and goes, as those of compilers and of
tests do, ends no task.

Standard library only; see ``spawner`` for how it is loaded.
"""
# Each module imported here makes every fork slower, and pathlib is a large one:

from __future__ import annotations

import contextlib
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds of work at once, and then of rest: a walk through many files goes on after it.
WORK, REST = 0.03, 0.15
#: Seconds from one walk to the next: while it takes much of what it may, and at most.
SOON, LATE = 1.0, 8.0
#: Bytes that any file counts as: also an empty one takes a place that others then lack.
LEAST = 4096
#: Walks in a row that were not whole: then what the disk has lost counts.
MOST_UNSURE = 3
#: So often a directory is read again when one in it was gone before it was opened.
_AGAIN = 8
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Characters of a path, which may have 4096 bytes.
_FAR = 800


def _taken() -> int:
    """The bytes that are taken of the file system that we are in, by whomever."""
    with contextlib.suppress(OSError):
        found = os.statvfs(".")
        return (found.f_blocks - found.f_bfree) * found.f_frsize
    return 0


class DiskUse:
    """The use of the directory that we are in, which may be *limit* bytes; 0 is no limit."""

    def __init__(
        self,
        limit: int,
        now: float,
        clock: Callable[[], float] = time.monotonic,
        taken: Callable[[], int] = _taken,
    ) -> None:
        self.limit, self.used, self._seen = limit, 0, 0
        #: When to look next; None for never.
        self.due = now + SOON if limit else None
        self._pause = SOON
        self._clock, self._taken = clock, taken
        self._walk: tuple[_Walk, Iterator[int]] | None = None
        #: What was taken of the file system when the last whole walk began, and what that counted.
        self._sure = (taken(), 0) if limit else (0, 0)
        self._begun_at, self._unsure = self._sure[0], 0

    def is_too_much(self, now: float) -> bool:
        """Look, as far as one look goes; whether more is taken than may be.

        So it is, too, when three walks in a row were not whole, and the file system has lost more
        meanwhile than the task may still take: no neighbour's writing ends a task that can be
        counted.
        """
        walk, sizes = self._walk or self._begin()
        until, is_over = self._clock() + WORK, True
        for size in sizes:
            self._seen += size
            if self._clock() >= until:
                is_over = False
                break
        self.used = max(self.used, self._seen)
        if is_over:
            self._end(walk)
        is_too_much = self.used > self.limit or self._is_hidden()
        if is_over or is_too_much:
            self._walk = None
        soon = 2 * self.used > self.limit or self._unsure or not is_over
        self._pause = SOON if soon else min(LATE, 2 * self._pause)
        self.due = now + (self._pause if is_over else REST)
        return is_too_much

    def _begin(self) -> tuple[_Walk, Iterator[int]]:
        self._seen, self._begun_at = 0, self._taken()
        walk = _Walk()
        self._walk = walk, walk.sizes()
        return self._walk

    def _end(self, walk: _Walk) -> None:
        if walk.is_whole:
            self._unsure, self.used = 0, self._seen
            self._sure = self._begun_at, self._seen
        else:
            self._unsure += 1

    def _is_hidden(self) -> bool:
        before, counted = self._sure
        return self._unsure >= MOST_UNSURE and self._taken() - before > self.limit - counted


class _Place:
    """A directory in a walk: its path from an open one, which it is, and whose it is."""

    __slots__ = ("again", "inode", "is_read", "lacks", "parent", "path")

    def __init__(self, path: str, inode: int, parent: _Place | None) -> None:
        self.path, self.inode, self.parent = path, inode, parent
        self.again = _AGAIN
        #: One in it could not be read.
        self.lacks = self.is_read = False


class _Walk:
    """One walk through all that is below the directory that we are in, however deep."""

    def __init__(self) -> None:
        #: Whether all was counted that stayed where it was; until the end, as far as is known.
        self.is_whole = True
        self._linked: set[int] = set()
        #: Directories that were read, and those of them in which something is left to read.
        self._read: set[int] = set()
        self._cut: set[int] = set()

    def sizes(self) -> Iterator[int]:
        """The bytes on the disk of each file, or LEAST; of one of several names once."""
        try:
            here = os.open(".", _DIRECTORY)
        except OSError:
            self.is_whole = False
            return
        try:
            # So far down that a path would be too long another one begins.  The way back is by
            # "..": one descriptor is enough for any depth.
            top = _inode(here)
            bases = [(top, 0, [_Place(".", top, None)])]
            while bases:
                _, depth, left = bases[-1]
                if not left:
                    bases.pop()
                    if bases:
                        back = _Place("/".join([".."] * depth), bases[-1][0], None)
                        if (found := self._opened(back, here)) < 0:  # It was moved with us in it.
                            self.is_whole = False
                            return
                        os.close(here)
                        here = found
                    continue
                place = left.pop()
                if place.is_read:
                    self._check(place, left)
                elif (found := self._opened(place, here)) < 0:
                    self._miss(place)
                elif len(place.path) > _FAR:
                    os.close(here)
                    here = found
                    begin = _Place(".", place.inode, place.parent)
                    bases.append((place.inode, place.path.count("/"), [begin]))
                else:
                    yield from self._listed(found, place, left)
        finally:
            os.close(here)

    def _opened(self, place: _Place, here: int) -> int:
        """A descriptor of *place*; -1 where it is not any more, or cannot be opened."""
        with contextlib.suppress(OSError):
            found = os.open(place.path, _DIRECTORY, dir_fd=here)
            if _inode(found) == place.inode:
                return found
            os.close(found)
        return -1

    def _listed(self, found: int, place: _Place, left: list[_Place]) -> Iterator[int]:
        """The sizes of *place* and of the files in it; its directories are *left*, then itself."""
        try:
            again = place.inode in self._read
            self._read.add(place.inode)
            self._cut.discard(place.inode)
            place.is_read = True
            left.append(place)
            yield 0 if again else max(os.fstat(found).st_blocks * 512, LEAST)
            with os.scandir(found) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        yield 0 if again else self._size(entry)
                    elif (inode := entry.inode()) not in self._read or inode in self._cut:
                        left.append(_Place(f"{place.path}/{entry.name}", inode, place))
                        yield 0
        except OSError:
            self._miss(place)
        finally:
            os.close(found)

    def _size(self, entry: os.DirEntry[str]) -> int:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return 0
        except OSError:
            self.is_whole = False
            return 0
        if status.st_nlink > 1:
            if status.st_ino in self._linked:
                return 0
            self._linked.add(status.st_ino)
        return max(status.st_blocks * 512, LEAST)

    def _miss(self, place: _Place) -> None:
        """It is looked for where it was, and goes on there, by whatever name."""
        self._cut.add(place.inode)
        if place.parent is None:
            self.is_whole = False
        else:
            place.parent.lacks = True

    def _check(self, place: _Place, left: list[_Place]) -> None:
        """All that was found in *place* has been read; read it again if something was gone."""
        if place.lacks and place.again:
            place.again -= 1
            place.lacks = place.is_read = False
            left.append(place)
        elif place.lacks:
            self.is_whole = False


def _inode(descriptor: int) -> int:
    return os.fstat(descriptor).st_ino
