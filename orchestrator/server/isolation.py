"""How far the local nodes wall off what they run: in a sentence for who starts them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from nodes.models import Node

LOOK_EVERY = 1.0

LEVEL = "node.isolation"
WALLS = (
    ("user", "each is a user of its own", "all run as the agent's user"),
    ("sandbox", "in a sandbox", "outside any sandbox"),
    ("cgroup", "with limits on memory and processes", "without limits on memory and processes"),
)
MORE = "docs/security.md says what that keeps from a task, and what not."
NONE = (
    "Tasks are NOT walled off: whoever may submit a job can do and read here whatever the agent "
    f"can. {MORE}"
)


class LocalIsolation:
    """What the nodes *names* say in their next sessions; made before their agents are started."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._before = {name: epoch for name, epoch, _said in self._sessions()}
        self._look_at = 0.0

    def sentences(self, now: float) -> list[str] | None:
        """How far tasks are walled off, once all nodes have said it; asks once a second."""
        if now < self._look_at:
            return None
        self._look_at = now + LOOK_EVERY
        said = {
            name: attributes
            for name, epoch, attributes in self._sessions()
            if epoch > self._before.get(name, 0)
        }
        return sentences(said) if len(said) == len(self._names) else None

    def _sessions(self) -> list[tuple[str, int, Mapping[str, str]]]:
        sessions = Node.objects.filter(name__in=self._names, session__isnull=False)
        return list(sessions.values_list("name", "session__epoch", "attributes"))


def sentences(said: Mapping[str, Mapping[str, str]]) -> list[str]:
    """How far tasks are walled off, by what each node has *said*; once where it is the same."""
    alike = defaultdict(list)
    for name in sorted(said):
        alike[_sentence(said[name])].append(name)
    if len(alike) == 1:
        return list(alike)
    return [f"{', '.join(names)}: {sentence}" for sentence, names in alike.items()]


def _sentence(attributes: Mapping[str, str]) -> str:
    level = attributes.get(LEVEL, "none")
    if level == "none":
        return NONE
    walls = [yes if f"{LEVEL}.{wall}" in attributes else no for wall, yes, no in WALLS]
    return f"Tasks are walled off ({level}): {', '.join(walls)}. {MORE}"
