"""Runs ``true`` behind the walls that its arguments ask for, as a supervisor would.

Standard library only.  The agent starts it as ``python -I -S walls_probe.py WORD…`` in an empty
directory; the words are those of ``confinement``.  What does not work is its last line.
"""
# ruff: noqa: PTH100, PTH103, PTH115, PTH120

from __future__ import annotations

import os
import sys

sys.path.append(os.path.dirname(os.path.abspath(__file__)))

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .confinement import SANDBOX, Confinement, Host
    from .sandbox import fork_apart
    from .supervisor import prctl
else:
    from confinement import SANDBOX, Confinement, Host
    from sandbox import fork_apart
    from supervisor import prctl


def main() -> None:
    words = [os.fsencode(word) for word in sys.argv[1:]]
    prctl(36, 1, 0, 0, 0)  # Whoever is forked apart comes to us.
    if pid := fork_apart() if SANDBOX in words else os.fork():
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    host = Host(int(os.readlink("/proc/self")))
    walls = Confinement(words, host)
    os.makedirs("work/probe", 0o711)
    state, work = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (".", "work"))
    os.chdir("work/probe")
    try:
        walls.prepare("probe", state)
        first = walls.spawn([b"true"], {b"PATH": os.environb[b"PATH"]}, 1, 2)
        status = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    finally:
        os.fchdir(state)
        walls.leave("probe", work, is_empty=True)
        host.close()
    sys.exit(status)


try:
    main()
except OSError as error:
    why = error.strerror or str(error)
    sys.exit(f"{why}: {os.fsdecode(error.filename)}" if error.filename else why)
