"""Whom to kill, and what it takes to have it back."""

from __future__ import annotations

import random
from collections.abc import Callable

import psutil

from tests.chaos.cluster import Cluster, NotInTime, kill, until

Victim = Callable[[Cluster], None]
SOON = 20.0
"""Within so many seconds whoever guards a process must have put another in its place."""


def busy_worker(cluster: Cluster) -> None:
    """A worker that holds leases; the sentinel puts another in its place."""
    kill(until(cluster.busy_workers, within=SOON, pause=0, say="a worker that holds leases")[0])
    _until_workers_are_back(cluster)


def idle_workers(cluster: Cluster) -> None:
    """Every worker that waits for work, and so the one that holds the lock of their queue."""
    for pid in set(cluster.workers()) - set(cluster.busy_workers()):
        kill(pid)
    _until_workers_are_back(cluster)


def cluster_parent(cluster: Cluster) -> None:
    """The q cluster's parent; what it leaves behind must not be in its successor's way."""
    part = cluster.parts["worker"]
    orphans = part.family()[1:]
    part.kill()
    part.start()
    until(lambda: not _alive(orphans), within=SOON, say=lambda: f"end of orphans {_alive(orphans)}")


def sentinel(cluster: Cluster) -> None:
    """The guard of the q cluster; whoever started the cluster starts it again."""
    part = cluster.parts["worker"]
    family = part.family()[1:]
    kill(cluster.sentinel())
    until(lambda: not _alive(family), within=SOON, say=lambda: f"end of orphans {_alive(family)}")
    if _has_ended(cluster, "worker"):
        part.start()


def pusher_or_monitor(cluster: Cluster) -> None:
    """The two of the q cluster that are no workers."""
    guard = psutil.Process(cluster.sentinel())
    workers = set(until(cluster.workers, within=SOON, say="workers"))
    for process in guard.children():
        if process.pid not in workers:
            kill(process.pid)


def web(cluster: Cluster) -> None:
    """Daphne, with every session of every node."""
    cluster.parts["web"].kill()
    cluster.parts["web"].start()


def agent(cluster: Cluster) -> None:
    """An agent; its tasks go on, and their exits wait for its successor."""
    part = cluster.parts[random.choice(cluster.agents)]
    part.kill()
    part.start()


def spawner(cluster: Cluster) -> None:
    """The process that forks the tasks of an agent; their supervisors go on without it."""
    name = random.choice(cluster.agents)
    pid = cluster.spawner(name)
    assert pid is not None, f"{name} has no spawner"
    kill(pid)


def database(cluster: Cluster) -> None:
    """PostgreSQL: whatever was committed is there when it has come back."""
    process = cluster.server.process
    assert process is not None
    process.kill()
    process.wait()
    cluster.server.start()


def supervisor(cluster: Cluster) -> None:
    """What watches one task: the task ends with it, and its slot is tried again elsewhere."""
    for name in cluster.agents:
        pid = cluster.spawner(name)
        children = psutil.Process(pid).children() if pid is not None else []
        if busy := [child for child in children if _has_children(child)]:
            kill(random.choice(busy).pid)
            return


def everything(cluster: Cluster) -> None:
    """All that is ours at one blow, as when a machine's memory runs out; only tasks go on."""
    process = cluster.server.process
    assert process is not None
    everybody = [member for part in cluster.parts.values() for member in part.family()]
    spawners = {cluster.spawner(name) for name in cluster.agents}
    below = {
        child.pid
        for pid in spawners
        if pid is not None
        for child in psutil.Process(pid).children(recursive=True)
    }
    process.kill()
    for member in everybody:
        if member.pid not in below:
            kill(member.pid)
    process.wait()
    for part in cluster.parts.values():
        part.kill()
    cluster.server.start()
    for part in cluster.parts.values():
        part.start()


def _until_workers_are_back(cluster: Cluster) -> None:
    until(cluster.workers, within=SOON, say="another worker")


def _has_children(process: psutil.Process) -> bool:
    try:
        return bool(process.children())
    except psutil.NoSuchProcess:
        return False


def _alive(those: list[psutil.Process]) -> list[int]:
    return [
        process.pid
        for process in those
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    ]


def _has_ended(cluster: Cluster, name: str) -> bool:
    process = cluster.parts[name].process
    assert process is not None
    try:
        until(lambda: process.poll() is not None, within=2)
    except NotInTime:
        return False
    return True


VICTIMS: dict[str, Victim] = {
    "a busy worker": busy_worker,
    "the idle workers": idle_workers,
    "the parent of the q cluster": cluster_parent,
    "the sentinel": sentinel,
    "pusher and monitor": pusher_or_monitor,
    "daphne": web,
    "an agent": agent,
    "a spawner": spawner,
    "a supervisor": supervisor,
    "the database": database,
    "everything": everything,
}
