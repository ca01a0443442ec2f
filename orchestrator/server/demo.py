"""What `manage.py up` shows to whoever starts it first: two jobs on real input.

A client of the HTTP API like any other.
"""

from collections.abc import Callable
from threading import Event
from typing import Any
from uuid import uuid4

import httpx

COUNT_WORDS = """
import os, pathlib, sysconfig, time
slot, count = int(os.environ["MUSTER_SLOT"]), int(os.environ["MUSTER_COUNT"])
library = pathlib.Path(sysconfig.get_path("stdlib"))
files = sorted(p for p in library.rglob("*") if p.suffix in {".py", ".txt"} and p.is_file())
share = files[slot::count]
print(f"slot {slot} of {count}: {len(share)} of {len(files)} files below {library}", flush=True)
words = lines = 0
begun = time.monotonic()
for number, file in enumerate(share, 1):
    text = file.read_text(errors="replace")
    words += len(text.split())
    lines += text.count("\\n")
    if number % 50 == 0:
        print(f"{number} files, {words} words so far", flush=True)
    # At its own speed it is over before anybody has looked.
    due = begun + float(os.environ["DEMO_SECONDS"]) * number / len(share)
    time.sleep(max(0, due - time.monotonic()))
print(f"total: {words} words, {lines} lines, {len(share)} files", flush=True)
"""

KEEP_TIME = """
import time
for beat in range(1, 3601):
    print("tick" if beat % 2 else "tock", beat, flush=True)
    time.sleep(1)
"""

WORD_COUNT = "word-count"
METRONOME = "metronome"
LIVE = {"pending", "queued", "running"}
"""States of a job that is on its way."""

SLOTS = 6
SECONDS = 12
LINGER = 5.0
POLL = 0.5


class Demo:
    """The two jobs, submitted and followed until both have ended."""

    def __init__(self, client: httpx.Client, *, say: Callable[[str], None], stopped: Event) -> None:
        self.client = client
        self.say = say
        self.stopped = stopped

    def play(self) -> None:
        """Count words, keep time meanwhile, and stop keeping time when the words are counted."""
        self._submit(METRONOME, slots=1, script=KEEP_TIME, env={})
        self._submit(WORD_COUNT, SLOTS, COUNT_WORDS, {"DEMO_SECONDS": str(SECONDS)})
        counted = self._followed(WORD_COUNT)
        if counted is None:
            return
        self._tell(counted)
        if self.stopped.wait(LINGER):
            return
        self._ask("POST", f"jobs/{METRONOME}/stop", json={"reason": "the demonstration is over"})
        ended = self._followed(METRONOME)
        if ended is not None:
            self._tell(ended)

    def _submit(self, name: str, slots: int, script: str, env: dict[str, str]) -> None:
        """Submit one of the jobs; at a later start it goes on, or if it has ended, runs again."""
        job = self._ask("POST", "jobs", json=spec(name, slots, script, env))
        if job["changed"]:
            self.say(f"demo: {name} submitted, {slots} slot{'s' if slots > 1 else ''}")
        elif job["state"] in LIVE:
            self.say(f"demo: {name} goes on where it stopped")
        else:
            self._ask("POST", f"jobs/{name}/rerun", json={})
            self.say(f"demo: {name} runs again")

    def _followed(self, name: str) -> dict[str, Any] | None:
        """Wait until job *name* has ended; None if we are stopped before."""
        while not self.stopped.wait(POLL):
            job = self._ask("GET", f"jobs/{name}")
            if job["state"] not in LIVE:
                return job
        return None

    def _tell(self, job: dict[str, Any]) -> None:
        self.say(f"demo: {job['name']} {job['state']}: {job['sentence']}")

    def _ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """What the cluster answers; while it is away it is asked again, and does it once."""
        headers = {"Idempotency-Key": str(uuid4())}
        while True:
            try:
                answer = self.client.request(method, path, headers=headers, **more)
                answer.raise_for_status()
            except httpx.HTTPError as why:
                if not _passes(why) or self.stopped.wait(POLL):
                    raise
            else:
                said: dict[str, Any] = answer.json()
                return said


def _passes(why: httpx.HTTPError) -> bool:
    """Whether a part that ended was what failed: `make up` starts it again."""
    if isinstance(why, httpx.HTTPStatusError):
        return why.response.is_server_error
    return isinstance(why, httpx.TransportError)


def spec(name: str, slots: int, script: str, env: dict[str, str]) -> dict[str, Any]:
    """Say one of the jobs in the words of a job file."""
    return {
        "name": name,
        "type": "batch",
        "count": slots,
        "labels": {"demo": "yes"},
        "task": {
            "driver": "process",
            "command": ["python3", "-c", script],
            "env": env,
            "resources": {"cpu": "100m", "memory": "64MiB"},
        },
    }
