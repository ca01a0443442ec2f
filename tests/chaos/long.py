"""Kill random victims for minutes: `python -m tests.chaos.long --minutes 5 [--seed N]`.

Round after round a set of jobs is submitted, some victims are killed while it runs, and when all
of it is completed the audit has to find nothing.  The seed says whom and when.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from tests.chaos.cluster import Cluster
from tests.chaos.victims import VICTIMS
from tests.chaos.work import JobSet, audit, audit_at_work

JOBS, SLOTS = 10, 20
SECONDS = (1.0, 5.0)
BOUND = 120.0
"""Within so many seconds of the last kill a round must be completed."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=5)
    options.add_argument("--seed", type=int, default=random.randrange(10**6))
    options.add_argument("--most", type=int, default=3, help="victims in one round")
    chosen = options.parse_args()
    chance = random.Random(chosen.seed)
    _say(f"seed {chosen.seed}, {chosen.minutes:g} minutes")
    end = time.monotonic() + 60 * chosen.minutes
    with (
        tempfile.TemporaryDirectory(prefix="muster-chaos-") as directory,
        Cluster(Path(directory), agents=3, workers=2).running() as cluster,
    ):
        number = 0
        while time.monotonic() < end:
            number += 1
            _round(cluster, number, chance, chosen.most)
    _say(f"{number} rounds, nothing lost, nothing twice")


def _round(cluster: Cluster, number: int, chance: random.Random, most: int) -> None:
    began = time.monotonic()
    jobs = JobSet(cluster, f"round-{number}")
    jobs.submit(jobs=JOBS, count=SLOTS, seconds=SECONDS)
    killed = []
    for _ in range(chance.randint(1, most)):
        jobs.wait_until_running(chance.randrange(JOBS * SLOTS), within=BOUND)
        victim = chance.choice(sorted(VICTIMS))
        if victim == "a busy worker" and jobs.has_ended():
            continue  # Nobody is busy any longer.
        VICTIMS[victim](cluster)
        killed.append(victim)
    audit_at_work(cluster)
    jobs.wait_until_completed(within=BOUND)
    audit(cluster)
    megabytes = {name: _resident(cluster, name) for name in cluster.parts}
    sizes = " ".join(f"{name} {size:.0f}" for name, size in megabytes.items())
    _say(
        f"round {number}: killed {', '.join(killed)}; "
        f"completed in {time.monotonic() - began:.1f} s; MB {sizes}"
    )


def _resident(cluster: Cluster, name: str) -> float:
    """The memory of a part and of all below it; what they share is counted each time."""
    return sum(process.memory_info().rss for process in cluster.parts[name].family()) / 1e6


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - what it is for


if __name__ == "__main__":
    main()
