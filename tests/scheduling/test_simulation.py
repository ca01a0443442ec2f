"""A job in a cluster that obeys, over hundreds of decisions."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.lifecycle import JobState
from orchestrator.scheduling.slot_set import with_slots
from orchestrator.spec import OnLost
from tests.scheduling.simulation import Simulation
from tests.scheduling.worlds import MIB, job_spec, node


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(0, 8),
    ask=st.integers(1, 2),
    approval=st.sampled_from(["bid", "none"]),
    on_lost=st.sampled_from(["replace", "wait"]),
)
def test_a_cluster_that_obeys_completes_every_job_within_its_attempts(
    seed, count, ask, approval, on_lost
):
    spec = job_spec(
        count=count,
        approval=approval,
        on_lost=on_lost,
        ask=ask if approval == "bid" else 1,
        retry={"attempts": 100, "delay": "1s", "max_delay": "2s"},
        resources={"cpu": 1, "memory": 64 * MIB},
    )
    simulation = Simulation(Random(seed), spec, [node("n1", cpu=2000), node("n2", cpu=3000)])
    simulation.run()
    assert simulation.job.state is JobState.COMPLETED
    assert simulation.job.progress.completed == with_slots(b"", range(count))
    assert simulation.job.progress.outcomes.get("completed", 0) == count, "once each"


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 5))
def test_attempts_are_never_exceeded_and_a_failed_job_leaves_nothing_running(seed, count):
    spec = job_spec(count=count, retry={"attempts": 2, "delay": "1s"})
    simulation = Simulation(Random(seed), spec, ["n1", "n2"])
    simulation.run()
    assert simulation.job.state in {JobState.COMPLETED, JobState.FAILED}
    assert all(failed <= 2 for failed in simulation.failures.values())
    assert simulation.executions == {}


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), approval=st.sampled_from(["bid", "none"]))
def test_what_may_run_once_starts_once(seed, approval):
    spec = job_spec(count=4, approval=approval, on_lost="fail", retry={"attempts": 1})
    simulation = Simulation(Random(seed), spec, ["n1", "n2"])
    simulation.run()
    assert set(simulation.starts.values()) <= {1}
    assert simulation.job.state in {JobState.COMPLETED, JobState.FAILED}


class Busy(Simulation):
    """People change their minds and operators their cluster while it works."""

    def __init__(self, chance, base, nodes):
        self.base = base
        super().__init__(chance, job_spec(**base), nodes)

    def meddle(self):
        draw, some = self.chance.random(), self.chance.choice(self.nodes)["name"]
        if draw < 0.12:
            self.again(count=self.chance.randint(0, 6))
        elif draw < 0.16:
            self.again(task={"command": [self.chance.choice(["true", "false"])]})
        elif draw < 0.2:
            zone = self.chance.choice(["a", "b"])
            self.again(constraints=self.chance.choice([[], [f"zone = {zone}"]]))
        elif draw < 0.23:
            self.submit(job_spec(**self.base), rerun=True)
        elif draw < 0.26:
            self.stop()
        elif draw < 0.32:
            self.lose(some)
        elif draw < 0.36:
            self.drain(some)
        elif draw < 0.38 and len(self.nodes) > 2:
            self.reject(some)
        elif draw < 0.6:
            self.find(some)

    def again(self, **differing):
        self.base = {**self.base, **differing}
        self.submit(job_spec(**self.base))

    def calm(self):
        """Nobody meddles any longer, and all nodes are back."""
        self.again(constraints=[])
        for it in self.nodes:
            self.find(it["name"])


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    ask=st.integers(1, 3),
    approval=st.sampled_from(["bid", "none"]),
    on_lost=st.sampled_from(sorted(OnLost)),
    attempts=st.sampled_from([2, 100]),
    limit=st.sampled_from([None, 3]),
    queue=st.sampled_from([None, 20]),
)
def test_whatever_people_do_meanwhile_the_job_ends_and_every_plan_keeps_its_promises(
    seed, ask, approval, on_lost, attempts, limit, queue
):
    base = {
        "count": 3,
        "approval": approval,
        "on_lost": on_lost,
        "ask": ask if approval == "bid" else 1,
        "retry": {"attempts": attempts, "delay": "1s", "max_delay": "2s"},
        "resources": {"cpu": 1, "memory": 64 * MIB},
        "timeouts": {"execution": limit, "queue": queue},
        "grace": 0,
    }
    nodes = [node(f"n{number}", cpu=1000 * number, zone="ab"[number % 2]) for number in range(1, 5)]
    simulation = Busy(Random(seed), base, nodes)
    for _ in range(60):
        simulation.evaluate()
        simulation.happen()
        simulation.meddle()
    simulation.calm()
    simulation.run()
    job = simulation.job
    if job.state is JobState.COMPLETED:
        everything = with_slots(b"", range(job.count))
        assert with_slots(job.progress.completed, range(job.count)) == job.progress.completed
        assert everything == b"" or job.progress.completed
