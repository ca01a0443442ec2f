"""What processes of a cluster share survives the death of any of them."""

import multiprocessing
import os
import signal
import time

import pytest

from orchestrator.server.cluster import ipc
from orchestrator.server.cluster.ipc import Channel, Flag, ProcessLock, shared_value

fork = multiprocessing.get_context("fork")


@pytest.fixture
def start():
    started = []

    def run(target, *arguments):
        process = fork.Process(target=target, args=arguments)
        process.start()
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.join()


class TestChannel:
    def test_what_is_put_is_got_in_order(self):
        channel = Channel()
        for message in ({"a": 1}, "STOP", None):
            channel.put(message)
        assert [channel.get() for _ in range(3)] == [{"a": 1}, "STOP", None]
        assert channel.empty()

    def test_large_messages_pass(self):
        channel = Channel()
        large = os.urandom(2_000_000)
        channel.put(large)
        assert channel.get() == large

    def test_a_bounded_one_waits_until_its_message_is_taken(self, start):
        channel = Channel(maxsize=1)
        channel.put(1)
        taken = Flag()

        def take():
            taken.set()
            channel.get()

        reader = start(take)
        channel.put(2)
        assert taken.is_set()
        reader.join(5)
        assert channel.get() == 2

    def test_it_does_not_wait_when_the_cluster_stops(self):
        ipc.share_stopping()
        try:
            channel = Channel(maxsize=1)
            channel.put(1)
            ipc.stop()
            channel.put(2)
            assert (channel.get(), channel.get()) == (1, 2)
        finally:
            ipc._stopping = None

    def test_readers_killed_while_they_wait_harm_nobody(self, start, eventually):
        """The lock of a multiprocessing.Queue would be gone with the first of them."""
        channel, answers = Channel(), Channel()

        def wait():
            while True:
                answers.put(channel.get())

        readers = [start(wait) for _ in range(4)]
        for reader in readers[:3]:
            os.kill(reader.pid, signal.SIGKILL)
            reader.join(5)
        for n in range(20):
            channel.put(n)
            assert answers.get() == n

    def test_each_message_goes_to_one_reader(self, start):
        channel, answers = Channel(), Channel()

        def work():
            while (message := channel.get()) != "STOP":
                answers.put(message)

        readers = [start(work) for _ in range(3)]
        got = []
        for n in range(60):
            channel.put(n)
            if n >= 5:
                got.append(answers.get())
        got += [answers.get() for _ in range(5)]
        for _ in readers:
            channel.put("STOP")
        for reader in readers:
            reader.join(5)
        assert sorted(got) == list(range(60))


class TestLocks:
    def test_a_lock_dies_with_its_holder(self, start, eventually):
        lock, holds = ProcessLock(), Flag()

        def hold():
            lock.acquire()
            holds.set()
            signal.pause()

        holder = start(hold)
        assert eventually(holds.is_set)
        os.kill(holder.pid, signal.SIGKILL)
        holder.join(5)
        with lock, lock:
            pass

    def test_a_lock_excludes_other_processes(self, start, eventually):
        lock, began, got = ProcessLock(), Flag(), Flag()

        def take():
            began.set()
            with lock:
                got.set()

        with lock:
            start(take)
            assert eventually(began.is_set)
            assert not got.wait(0.2)
        assert eventually(got.is_set)

    def test_a_shared_value_is_shared(self, start):
        value = shared_value("f", -1)

        def change():
            with value.get_lock():
                value.value = 7

        start(change).join(5)
        assert value.value == 7


def test_a_flag_wakes_who_waits_for_it(start):
    flag = Flag()
    assert not flag.wait(0.01)
    start(flag.set)
    began = time.monotonic()
    assert flag.wait(10)
    assert time.monotonic() - began < 5


def test_nothing_stops_outside_of_a_cluster():
    ipc.stop()
    assert not ipc.stopping()
