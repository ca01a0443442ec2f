"""The overview: is anything wrong, and what should be done first?"""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from typing import Any

from dashboard.presenters import bars, jobs, overview
from dashboard.queries import overview as find
from dashboard.rendering import Page
from nodes.protocol.resources import DIMENSIONS
from orchestrator import broker
from orchestrator.explain.formatting import counted

SLOW = timedelta(seconds=30)
LATELY = timedelta(hours=1)


class Overview(Page):
    folder = "overview"
    section = "overview"
    regions = ("attention", "tiles", "capacity", "waits", "jobs", "changes")

    @cached_property
    def room(self) -> find.Room:
        return find.room()

    @cached_property
    def recent(self) -> find.Recent:
        return find.recent(self.now)

    def attention(self) -> overview.Attention:
        health = self.health
        late = self.now - SLOW
        stuck = find.stuck_jobs(self.sight, late)
        standing = broker.standing([job.pk for job in stuck])
        # What was blocked or parked and has been asked about since is not stuck.
        standing = {
            pk: it
            for pk, it in standing.items()
            if it.state is not broker.QueueState.READY or it.since < late
        }
        return overview.attention(
            find.troubled_nodes(),
            [(job, standing[job.pk]) for job in stuck if job.pk in standing],
            find.failed_jobs(self.sight, self.now - LATELY),
            cap=find.ATTENTION,
            failures=sum(minute.failed for minute in self.recent.minutes),
            troubled=bool(health.trouble or health.warning or self.setting.scheduling_paused),
            known=self.room.known,
        )

    def tiles(self) -> list[overview.Tile]:
        return overview.tiles(
            *find.counts(),
            self.recent.minutes,
            (self.room.ready, self.room.known),
            cap=find.MOST_WAITING,
            cap_failed=find.MOST_FAILED,
        )

    def capacity(self) -> dict[str, Any]:
        room = self.room
        shown = [d for d in DIMENSIONS if room.capacity[d] or d in {"cpu", "memory"}]
        return {
            "bars": [bars.capacity(d, room.allocated[d], room.capacity[d]) for d in shown],
            "nodes": counted(room.offer, "node"),
            "known": room.known,
        }

    def waits(self) -> dict[str, Any]:
        return {"waits": overview.waits(self.recent.waits), "sample": self.recent.sample}

    def jobs(self) -> list[jobs.JobLine]:
        return [jobs.line(job, broker.known(job)) for job in find.newest_jobs(self.sight)]

    def changes(self) -> Any:
        return find.newest_events(self.sight)
