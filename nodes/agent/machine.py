"""What this machine is and has, within the limits that it puts on us."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import socket
from pathlib import Path

import psutil

from ..protocol import secret_references
from ..protocol.resources import Resources
from . import __version__

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_UNITS |= {"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}
#: No message has room for a larger number.
MOST = 2**53
_CGROUP = Path("/sys/fs/cgroup")


def boot_id() -> str:
    """What changes with every start of the machine, and only then."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def detect(directory: Path, *, ours: Path) -> Resources:
    """What may be offered: the machine's own amounts, or less where we are confined.

    Of the disk that holds *directory* what is free is offered, and what the files in *ours* take:
    those are of executions, whose needs the orchestrator counts.
    """
    cores = float(len(os.sched_getaffinity(0)))
    if (quota := _cpu_quota()) is not None:
        cores = min(cores, quota)
    memory = psutil.virtual_memory().total
    if (limit := _memory_limit()) is not None:
        memory = min(memory, limit)
    disk = shutil.disk_usage(directory)
    return Resources(
        cpu=int(cores * 1000),
        memory=memory,
        disk=min(disk.total, disk.free + _size(ours)),
        gpu=_gpus(),
    )


def attributes(resources: Resources) -> dict[str, str]:
    """Facts that constraints may ask for, beside the labels operators give."""
    return {
        "os": platform.system().lower(),
        "arch": platform.machine(),
        "kernel": platform.release(),
        "hostname": socket.gethostname(),
        "cpu.cores": f"{resources.cpu / 1000:g}",
        "memory": str(resources.memory),
        "python": platform.python_version(),
        "agent.version": __version__,
        secret_references.ATTRIBUTE: "true",
        "driver.process": "true",
        "driver.process.version": __version__,
    }


def amount(text: str) -> int:
    """Bytes of ``512MiB``, ``2G`` or ``1000``; raises ValueError with a sentence."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", text, re.IGNORECASE)
    if match is None or match[2].lower() not in _UNITS:
        raise ValueError(f"{text!r} is not an amount; write bytes, or like 512MiB or 2GB")
    return _offered(text, float(match[1]) * _UNITS[match[2].lower()])


def count(text: str) -> int:
    """The whole number that *text* says; raises ValueError with a sentence."""
    if re.fullmatch(r"\d{1,19}", text, re.ASCII) is None:
        raise ValueError(f"{text!r} is not an amount; write a whole number")
    return _offered(text, int(text))


def _offered(text: str, amount: float) -> int:
    if amount > MOST:
        raise ValueError(f"{text!r} is more than any node may offer, which is {MOST}")
    return int(amount)


def _size(directory: Path) -> int:
    """What the files below *directory* take on the disk.  Any of them may vanish meanwhile.

    The walk keeps its own stack: tasks may have nested directories however deep.
    """
    size, left = 0, [str(directory)]
    while left:
        with contextlib.suppress(OSError), os.scandir(left.pop()) as found:
            for entry in found:
                with contextlib.suppress(OSError):
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
    return size


def _cpu_quota() -> float | None:
    """The tightest cpu limit over the path of our cgroup, in cores."""
    quotas = []
    for group in _path("", "cpu.max"):
        quota, period = group.split()
        if quota != "max":
            quotas.append(int(quota) / int(period))
    periods = _path("cpu", "cpu.cfs_period_us")
    for quota, period in zip(_path("cpu", "cpu.cfs_quota_us"), periods, strict=False):
        if int(quota) > 0:
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _memory_limit() -> int | None:
    """The tightest memory limit over the path of our cgroup, in bytes."""
    limits = [*_path("", "memory.max"), *_path("memory", "memory.limit_in_bytes")]
    return min((int(limit) for limit in limits if limit != "max"), default=None)


def _path(controller: str, file: str) -> list[str]:
    """The contents of *file* in our cgroup of *controller* ("": the unified tree) and above."""
    found: list[str] = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller not in controllers.split(","):
                continue
            root = _CGROUP / controller if controller else _CGROUP
            group = root / path.strip("/")
            for level in (group, *group.parents):
                with contextlib.suppress(OSError):
                    found.append((level / file).read_text().strip())
                if level == root:
                    break
    return found


def _gpus() -> int:
    """Devices that the NVIDIA driver shows; asking it can hang, looking cannot."""
    with contextlib.suppress(OSError):
        return sum(1 for _ in Path("/proc/driver/nvidia/gpus").iterdir())
    return 0
