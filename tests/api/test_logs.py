"""Logs over the API: live from a real session, and what was kept when the node is away."""

import asyncio
import json
from base64 import b64decode
from collections import Counter
from contextlib import aclosing
from uuid import UUID

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db.backends.signals import connection_created
from django.test import AsyncClient

from nodes.callbacks import Inbound
from nodes.models import Node
from nodes.protocol.messages import UNKNOWN_OUTCOME, Happened, Report, Watch
from orchestrator import endpoint
from orchestrator.access import tokens
from orchestrator.api.logs import as_records
from orchestrator.endpoint import logs
from orchestrator.endpoint.logs.execution import _begin
from orchestrator.endpoint.logs.job import _look, _until_looking_again
from orchestrator.endpoint.logs.reading import LOOK_AGAIN
from orchestrator.lifecycle import Observed
from orchestrator.models import Execution, ExecutionOutput, Job
from tests import rows
from tests.nodes.links import hello, joined, play, running

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def reader():
    """Read an address to its end; the text."""
    root = User.objects.create_superuser("root")
    secret = tokens.create(user=root, name="t", scopes=["read"], expires_in=None)

    async def read(path, accept="text/plain"):
        answer = await AsyncClient().get(
            f"/api/v1/{path}", headers={"Authorization": f"Bearer {secret}", "Accept": accept}
        )
        assert answer.status_code == 200
        assert answer["Content-Type"].startswith(accept)
        return b"".join([piece async for piece in answer]).decode()

    return read


async def test_a_log_comes_from_the_node(reader, link, execution):
    text = asyncio.create_task(
        reader(f"executions/{execution.pk}/logs?follow=true&stream=stderr&offset=3")
    )
    watch = await link.hear(Watch)
    assert (watch.execution, watch.stream, watch.offset, watch.follow) == (
        str(execution.pk),
        "stderr",
        3,
        True,
    )
    await link.send_log(watch, 3, b"one\n")
    await link.send_log(watch, 7, b"two\n")
    await link.end_log(watch)
    assert await text == "one\ntwo\n"


@pytest.mark.parametrize(
    ("printed", "size", "query", "text"),
    [
        ("", 0, "", ""),
        ("the end\n", 8, "", "the end\n"),
        ("the end\n", 100, "", "[muster: 92 bytes not kept any longer]\nthe end\n"),
        ("the end\n", 100, "&tail=4", "end\n"),
        ("the end\n", 100, "&offset=100&follow=true", ""),
        (None, 0, "", "[muster: it is no longer kept]\n"),
    ],
    ids=["nothing printed", "all of it", "the end of it", "a tail", "read already", "unknown"],
)
def test_what_a_node_has_no_longer_is_told_from_what_came_with_the_final_report(
    reader, printed, size, query, text
):
    node, credential = joined()
    execution = running(node)
    if printed is not None:
        ExecutionOutput.objects.create(execution=execution, stderr=printed, stderr_size=size)

    async def scene(world):
        link = await world.greeted(credential)
        path = f"executions/{execution.pk}/logs?stream=stderr{query}"
        answer = asyncio.create_task(reader(path))
        await link.end_log(await link.hear(Watch), "it is no longer kept")
        assert await answer == text

    play(scene)


def test_a_task_that_ended_and_printed_nothing_has_an_empty_log(reader):
    node, credential = joined()
    execution = rows.execution(rows.job(), node, observed="completed", exit_code=0, cpu=0, memory=0)

    async def scene(world):
        link = await world.greeted(credential)
        answer = asyncio.create_task(reader(f"executions/{execution.pk}/logs?follow=true"))
        await link.end_log(await link.hear(Watch), "it is no longer kept")
        assert await answer == ""

    play(scene)


async def test_missing_bytes_are_named_where_they_are_missing(reader, link, execution):
    text = asyncio.create_task(reader(f"executions/{execution.pk}/logs"))
    watch = await link.hear(Watch)
    await link.send_log(watch, 100, b"late")
    await link.end_log(watch, "the rest cannot be read")
    assert await text == (
        "[muster: 100 bytes not kept any longer]\nlate\n[muster: the rest cannot be read]\n"
    )


async def test_a_tail_is_counted_from_the_end(reader, link, execution):
    text = asyncio.create_task(reader(f"executions/{execution.pk}/logs?tail=5"))
    watch = await link.hear(Watch)
    assert (watch.offset, watch.follow) == (-5, False)
    await link.send_log(watch, 95, b"tail\n")
    await link.end_log(watch)
    assert await text == "tail\n"


async def test_a_tail_of_nothing_is_nothing_and_asks_no_node(reader, execution):
    assert await reader(f"executions/{execution.pk}/logs?tail=0") == ""


@pytest.mark.parametrize(("printed", "end_at"), [(b"", 0), (b"x", 1), (b"t", 100)])
async def test_who_follows_from_the_end_sees_what_is_printed_from_then_on(
    reader, printed, end_at, link, execution
):
    text = asyncio.create_task(reader(f"executions/{execution.pk}/logs?tail=0&follow=true"))
    watch = await link.hear(Watch)
    assert (watch.offset, watch.follow) == (-1, False)
    if printed:
        await link.send_log(watch, end_at - 1, printed)
    await link.end_log(watch)
    watch = await link.hear(Watch)
    assert (watch.offset, watch.follow) == (end_at, True)
    await link.send_log(watch, end_at, b"new\n")
    await link.end_log(watch)
    assert await text == "new\n"


@pytest.mark.parametrize(
    ("tail", "offset", "observed", "begin"),
    [
        (None, 7, "running", 7),
        (5, None, "running", -5),
        (0, None, "running", None),
        (0, None, "preparing", 0),
        (5, 7, "running", 7),  # It goes on: the tail is behind.
    ],
)
def test_a_log_begins_where_it_is_asked_for(tail, offset, observed, begin):
    reading = logs.Reading(tail=tail, follow=True)
    assert _begin(reading, offset, observed) == begin


def test_who_follows_goes_on_where_the_link_broke(reader):
    node, credential = joined()
    execution = running(node)

    async def scene(world):
        link = await world.greeted(credential)
        text = asyncio.create_task(reader(f"executions/{execution.pk}/logs?follow=true"))
        watch = await link.hear(Watch)
        await link.send_log(watch, 0, b"one\n")
        await link.leave()
        again = await world.greeted(credential, hello(instance="i2", run=2))
        watch = await again.hear(Watch)
        assert watch.offset == 4
        await again.send_log(watch, 4, b"two\n")
        await again.end_log(watch)
        assert await text == "one\ntwo\n"

    play(scene)


def ended(node):
    """A task that printed 100 bytes, of which the last eight came with its report."""
    execution = rows.execution(rows.job(), node, observed="completed", cpu=0, memory=0)
    ExecutionOutput.objects.create(execution=execution, stdout="the end\n", stdout_size=100)
    return execution


def test_who_follows_what_has_ended_waits_for_its_node_to_be_back(reader):
    node, credential = joined()
    execution = ended(node)

    async def scene(world):
        text = asyncio.create_task(reader(f"executions/{execution.pk}/logs?follow=true"))
        done, _ = await asyncio.wait({text}, timeout=2 * LOOK_AGAIN)
        assert not done
        link = await world.greeted(credential)
        watch = await link.hear(Watch)
        assert watch.offset == 0
        await link.send_log(watch, 0, b"all of it")
        await link.end_log(watch)
        assert await text == "all of it"

    play(scene)


@pytest.mark.parametrize(
    ("offset", "connection", "patience"),
    [(92, "", 60), (None, "", 60), (0, "lost", 60), (0, "", 0.1)],
    ids=["has read up to what was kept", "asks for the end", "node is lost", "is long away"],
)
def test_who_follows_what_has_ended_waits_for_nothing_else(offset, connection, patience):
    node, _ = joined()
    execution = ended(node)
    if connection:
        Node.objects.filter(pk=node.pk).update(connection=connection)

    async def scene(world):
        reading = logs.Reading(follow=True, tail=20)
        found = logs.of_execution(execution.pk, reading, offset, patience=patience)
        async with asyncio.timeout(10):
            assert [it.data async for it in found][-1] == b"the end\n"

    play(scene)


def test_what_was_kept_is_read_once_however_long_its_node_is_waited_for():
    node, _ = joined()
    execution, asked = ended(node), Counter()

    def counted(execute, sql, *arguments):
        asked.update(it for it in ("executionoutput", "nodesession") if f"_{it}" in sql)
        return execute(sql, *arguments)

    def opened(connection, **_):
        if counted not in connection.execute_wrappers:  # It was open before.
            connection.execute_wrappers.append(counted)

    async def scene(world):
        reading = logs.Reading(follow=True)
        found = logs.of_execution(execution.pk, reading, 0, patience=4 * LOOK_AGAIN)
        assert [it.data async for it in found][-1] == b"the end\n"

    connection_created.connect(opened)
    try:
        play(scene)
    finally:
        connection_created.disconnect(opened)
    assert asked["nodesession"] >= 4
    assert asked["executionoutput"] == 2, "once to wait, once to show"


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("cancelled", "[muster: it never ran]\n"),
        ("failed", "[muster: it never ran]\n"),
        (
            "rejected",
            "[muster: the node {name} was rejected, and nothing was kept of what it printed; "
            "only running it again shows that]\n",
        ),
    ],
)
def test_who_follows_waits_for_no_node_that_has_nothing_or_never_comes_back(end, said):
    """Called off before it began, not started, or on a node that was rejected for good."""
    node, _ = joined()
    execution = rows.execution(rows.job(), node, observed="preparing", cpu=0, memory=0)
    if end == "rejected":
        rows.move(execution, Observed.RUNNING)
        endpoint.reject_node(node.pk, actor="user:ada")
    else:
        rows.move(execution, Observed(end))

    async def scene(world):
        found = logs.of_execution(execution.pk, logs.Reading(follow=True), 0)
        async with asyncio.timeout(10):
            text = b"".join([it.data async for it in found]).decode()
        assert text == said.format(name=node.name)

    play(scene)


def test_who_follows_what_may_have_run_waits_although_nobody_has_seen_it_begin():
    node, _ = joined()
    execution = rows.execution(rows.job(), node, observed="preparing", cpu=0, memory=0)
    report = Report(str(execution.pk), Happened.FAIL, code=UNKNOWN_OUTCOME)
    endpoint.receive([Inbound(node.pk, 0, 1, 0, (), (report,))])
    execution.refresh_from_db()
    assert (execution.observed, execution.started_at) == ("failed", None)

    async def scene(world):
        found = logs.of_execution(execution.pk, logs.Reading(follow=True), 0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2 * LOOK_AGAIN):
                assert not [it async for it in found]

    play(scene)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("", "[muster: 92 bytes on a node that is away]\nthe end\n"),
        ("offset=50", "[muster: 42 bytes on a node that is away]\nthe end\n"),
        ("offset=91", "[muster: 1 byte on a node that is away]\nthe end\n"),
        ("offset=96", "end\n"),
        ("offset=200", ""),
        ("tail=4", "end\n"),
        ("tail=0", ""),
        ("follow=true&tail=0", ""),
        ("follow=true&tail=4", "end\n"),
        ("stream=stderr", ""),
    ],
)
def test_what_was_kept_is_shown_when_the_node_is_away(reader, query, text):
    node, _ = joined()
    execution = ended(node)

    async def scene(world):
        assert await reader(f"executions/{execution.pk}/logs?{query}") == text

    play(scene)


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (
            True,
            "[muster: 92 bytes were only on the node {name}, which was removed]\nthe end\n",
        ),
        (
            False,
            "[muster: the node {name} was removed, and nothing was kept of what it printed; "
            "only running it again shows that]\n",
        ),
    ],
)
def test_a_removed_node_is_not_said_to_be_away(reader, kept, said):
    node, _ = joined()
    execution = rows.execution(rows.job(), node, observed="completed", cpu=0, memory=0)
    Execution.objects.update(reserved=False)
    if kept:
        ExecutionOutput.objects.create(execution=execution, stdout="the end\n", stdout_size=100)
    endpoint.remove_node(node.pk, actor="user:ada")

    async def scene(world):
        for follow in ("", "follow=true"):
            text = await reader(f"executions/{execution.pk}/logs?{follow}")
            assert text == said.format(name=node.name)

    play(scene)


def test_of_a_task_that_printed_nothing_nobody_says_that_it_was_not_kept(reader):
    """Its final report came and told of no output; its node is away."""
    node, _ = joined()
    execution = rows.execution(rows.job(), node, observed="running", cpu=0, memory=0)
    report = Report(str(execution.pk), Happened.COMPLETE, exit_code=0)
    endpoint.receive([Inbound(node.pk, 0, 1, 0, (), (report,))])

    async def scene(world):
        assert await reader(f"executions/{execution.pk}/logs") == ""

    play(scene)


def test_a_tail_of_what_was_kept_begins_with_a_whole_character_and_names_what_is_missing(reader):
    node, _ = joined()
    execution = rows.execution(rows.job(), node, observed="completed", cpu=0, memory=0)
    kept = "\u20ac5\n"
    ExecutionOutput.objects.create(execution=execution, stdout=kept, stdout_size=105)

    async def scene(world):
        for tail, text in ((4, "5\n"), (5, kept)):
            assert await reader(f"executions/{execution.pk}/logs?tail={tail}") == text
        note = "[muster: 95 bytes on a node that is away]\n"
        assert await reader(f"executions/{execution.pk}/logs?tail=100") == note + kept

    play(scene)


def test_who_follows_from_an_end_that_no_node_tells_hears_why():
    node, _ = joined()
    execution = running(node)

    async def scene(world):
        reading = logs.Reading(tail=0, follow=True)
        found = logs.of_execution(execution.pk, reading, None, patience=0)
        why = "the node is not connected"
        assert [(it.data, it.is_note, it.for_now) async for it in found] == [
            (f"[muster: {why}]\n".encode(), True, why)
        ]

    play(scene)


def test_who_has_read_all_reads_nothing_twice_when_the_node_goes_away(reader):
    """Bytes that are no text were kept as characters, of which there may be more bytes."""
    node, _ = joined()
    execution = rows.execution(rows.job(), node, observed="completed", cpu=0, memory=0)
    kept = b"\xff\xfe\n".decode(errors="replace")
    ExecutionOutput.objects.create(execution=execution, stdout=kept, stdout_size=3)

    async def scene(world):
        assert await reader(f"executions/{execution.pk}/logs?offset=3") == ""
        assert await reader(f"executions/{execution.pk}/logs") == kept

    play(scene)


def test_a_node_that_comes_back_every_time_is_never_away_for_long(reader):
    node, credential = joined()
    execution = running(node)

    async def read():
        pieces = logs.of_execution(execution.pk, logs.Reading(follow=True), 0, patience=1.0)
        return b"".join([piece.data async for piece in pieces])

    async def scene(world):
        link = await world.greeted(credential)
        text = asyncio.create_task(read())
        for run in range(2, 6):
            await link.hear(Watch)
            await link.leave()
            link = await world.greeted(credential, hello(instance=f"i{run}", run=run))
        watch = await link.hear(Watch)
        await link.send_log(watch, 0, b"at last\n")
        await link.end_log(watch)
        assert await text == b"at last\n"

    play(scene)


def test_what_never_ran_says_so(reader):
    node, _ = joined()
    execution = rows.execution(rows.job(), node, observed="ask_for_bid_rejected", cpu=0, memory=0)

    async def scene(world):
        assert await reader(f"executions/{execution.pk}/logs?follow=true") == (
            "[muster: it never ran]\n"
        )

    play(scene)


def test_the_lines_of_a_job_are_marked_with_their_slots(reader):
    node, credential = joined()
    first = running(node, slot=0)
    second = running(node, slot=1, job=first.job)
    by_id = {str(first.pk): (b"a\nb", b"c\n"), str(second.pk): (b"x\n", b"y")}

    async def scene(world):
        link = await world.greeted(credential)
        text = asyncio.create_task(reader("jobs/talks/logs"))
        for _ in by_id:
            watch = await link.hear(Watch)
            begin, rest = by_id[watch.execution]
            await link.send_log(watch, 0, begin)
            await link.send_log(watch, len(begin), rest)
            await link.end_log(watch)
        lines = (await text).splitlines()
        assert [it for it in lines if it.startswith("0 |")] == ["0 | a", "0 | bc"]
        assert [it for it in lines if it.startswith("1 |")] == ["1 | x", "1 | y"]

    play(scene)


def test_a_job_that_has_run_nothing_has_no_lines(reader):
    rows.job(name="idle")

    async def scene(world):
        assert await reader("jobs/idle/logs") == ""

    play(scene)
    assert not Execution.objects.exists()


def test_who_reads_slowly_reads_everything():
    """The last lines wait for their reader, also when all that printed has ended long before."""
    node, _ = joined()
    execution = running(node)
    numbers, ended = range(10), asyncio.Event()

    async def printed(key, _reading, _offset):
        for number in numbers:
            yield logs.Piece(key, b"%d\n" % number, 2 * number + 2)
        ended.set()

    async def scene(world):
        found = []
        lines = logs.of_job(execution.job_id, logs.Reading(), {}, read=printed)
        async for piece in lines:
            found.append(piece.data)
            await ended.wait()
            await asyncio.sleep(LOOK_AGAIN / 5)
        assert found == [b"0 | %d\n" % number for number in numbers]

    play(scene)


@pytest.mark.parametrize("tail", [0, 5])
def test_what_starts_while_a_job_is_followed_is_read_from_its_beginning(tail):
    node, _ = joined()
    job = rows.job(name="talks", count=2)
    first = running(node, slot=0, job=job)
    asked = {}

    async def printed(key, _reading, offset):
        asked[key] = offset
        if key == first.pk:
            await sync_to_async(running)(node, slot=1, job=job)
        yield logs.Piece(key, b"line\n", 5)

    async def scene(world):
        reading = logs.Reading(tail=tail, follow=True)
        async with aclosing(logs.of_job(job.pk, reading, {}, read=printed)) as lines:
            assert [(await anext(lines)).data for _ in range(2)] == [b"0 | line\n", b"1 | line\n"]
        assert list(asked.values()) == [None, 0]

    play(scene)


def test_who_reads_a_job_on_reads_what_has_started_meanwhile_from_its_beginning():
    node, _ = joined()
    known = running(node, slot=0)
    new = running(node, slot=1, job=known.job)
    asked = {}

    async def printed(key, _reading, offset):
        asked[key] = offset
        yield logs.Piece(key, b"line\n", 25)

    async def scene(world):
        reading = logs.Reading(tail=0)
        lines = logs.of_job(known.job_id, reading, {known.pk: 20}, read=printed)
        assert len([piece async for piece in lines]) == 2
        assert asked == {known.pk: 20, new.pk: 0}

    play(scene)


async def test_a_job_whose_executions_have_all_ended_is_not_looked_at_without_a_pause():
    loop = asyncio.get_running_loop()
    begun, done = loop.time(), asyncio.ensure_future(asyncio.sleep(0))
    await done
    waits = _until_looking_again(asyncio.Queue(), {rows.unknown_id(): done}, is_last=False)
    assert [piece async for piece in waits] == []
    assert loop.time() - begun >= LOOK_AGAIN


def test_who_has_ended_makes_room_for_others_and_who_waits_takes_none():
    """Fifty are read at once, however many the job has had, and only of those that have begun."""
    node, _ = joined()
    job = rows.job(name="talks", count=9)
    ended = [running(node, slot=slot, job=job) for slot in range(5)]
    waiting = rows.execution(job, node, observed="preparing", slot=5, cpu=0, memory=0)
    asked, at_once = [], []

    async def printed(key, _reading, _offset):
        asked.append(key)
        at_once.append(key)
        assert len(at_once) <= 2
        await asyncio.sleep(0)
        yield logs.Piece(key, b"line\n", 5)
        at_once.remove(key)
        if key == ended[4].pk:
            await sync_to_async(Execution.objects.filter(pk=waiting.pk).update)(
                observed="running",
                by_writer="endpoint",
                by_reason="it runs",
            )

    async def scene(world):
        lines = logs.of_job(job.pk, logs.Reading(follow=True), {}, read=printed, most=2)
        found = []
        async with aclosing(lines):
            while len(found) < 6:
                piece = await anext(lines)
                if not piece.is_note:
                    found.append(piece.data)
        assert found == [b"%d | line\n" % slot for slot in range(6)]
        assert asked == [it.pk for it in (*ended, waiting)]

    play(scene)


def test_a_job_with_more_executions_than_one_look_finds_is_read_whole_and_ends():
    """Also what began long before the newest, and begins to run when those are known."""
    node, _ = joined()
    job = rows.job(name="talks", count=4)
    waiting = rows.execution(job, node, observed="preparing", slot=0, cpu=0, memory=0)
    at_once = [running(node, slot=slot, job=job) for slot in (1, 2, 3)]
    asked, all_known = [], asyncio.Event()

    async def printed(key, _reading, _offset):
        asked.append(key)
        if len(asked) == len(at_once):
            all_known.set()
        yield logs.Piece(key, b"line\n", 5)

    def begin():
        Execution.objects.filter(pk=waiting.pk).update(
            observed="running", by_writer="endpoint", by_reason="it runs"
        )

    def end_all():
        Execution.objects.update(observed="completed", desired="stopped", by_writer="endpoint")
        Job.objects.update(state="completed")

    async def scene(world):
        reading = logs.Reading(follow=True)
        lines = logs.of_job(job.pk, reading, {}, read=printed)
        async with asyncio.timeout(10), aclosing(lines):
            for _ in at_once:
                await anext(lines)
            await all_known.wait()
            await sync_to_async(begin)()
            assert (await anext(lines)).execution == waiting.pk
            await sync_to_async(end_all)()
            assert [piece async for piece in lines] == []
        assert sorted(asked) == sorted(it.pk for it in (waiting, *at_once))

    play(scene)


def test_a_reader_that_knows_more_executions_than_a_statement_takes_parameters_goes_on():
    job = rows.job(name="talks", count=1)
    new = running(joined()[0], job=job)
    known = {UUID(int=number) for number in range(70_000)}
    assert [it.key for it in _look(job.pk, known, None, 1000).new] == [new.pk]


def test_a_log_that_cannot_be_read_breaks_the_whole_off():
    """A reader that fails is not one that has ended: who reads would take it for the whole."""
    node, _ = joined()
    execution = running(node)

    async def broken(key, _reading, _offset):
        yield logs.Piece(key, b"begun\n", 6)
        raise OSError("the log is gone")

    async def scene(world):
        lines = logs.of_job(execution.job_id, logs.Reading(), {}, read=broken)
        assert await anext(lines) == logs.Piece(execution.pk, b"0 | begun\n", 6)
        with pytest.raises(OSError, match="the log is gone"):
            await anext(lines)

    play(scene)


# --- records: for programs that read on where a connection broke ---------------------------------


@pytest.fixture
def records(reader):
    """Read the records of an address to their end; each as (execution, text, after)."""

    async def read(path):
        text = await reader(path, accept="application/x-ndjson")
        *found, end = [json.loads(line) for line in text.splitlines()]
        assert end == {"end": True}
        pieces = [it for it in found if it]
        assert all(it.get("note", False) == ("[muster:" in text_of(it)) for it in pieces)
        return [(it["execution"], text_of(it), it["after"]) for it in pieces]

    return read


def text_of(record):
    return b64decode(record["data"]).decode()


async def test_a_record_says_where_its_piece_ends(records, link, execution):
    read = asyncio.create_task(records(f"executions/{execution.pk}/logs?tail=5"))
    watch = await link.hear(Watch)
    await link.send_log(watch, 95, b"tail\n")
    await link.send_log(watch, 100, b"more\n")
    await link.end_log(watch)
    key = str(execution.pk)
    assert await read == [(key, "tail\n", 100), (key, "more\n", 105)]


async def test_the_server_shows_that_it_is_there_while_a_task_prints_nothing():
    printed = asyncio.Event()

    async def pieces():
        await printed.wait()
        yield logs.Piece(rows.unknown_id(), b"at last", 7)

    records = as_records(pieces(), heartbeat=0.01)
    assert await anext(records) == b"{}\n"
    printed.set()
    rest = [record async for record in records]
    assert [json.loads(record).get("after") for record in rest if record != b"{}\n"] == [
        7,
        None,
    ]


async def test_a_note_is_told_from_what_was_printed(records, link, execution):
    read = asyncio.create_task(records("jobs/talks/logs"))
    watch = await link.hear(Watch)
    await link.send_log(watch, 100, b"late")
    await link.end_log(watch, "the rest cannot be read")
    key = str(execution.pk)
    assert await read == [
        (key, "0 | [muster: 100 bytes not kept any longer]\n", 100),
        (key, "0 | late\n", 104),
        (key, "0 | [muster: the rest cannot be read]\n", 104),
    ]


def test_each_execution_of_a_job_goes_on_after_the_last_whole_line(records):
    node, credential = joined()
    first = running(node, slot=0)
    second = running(node, slot=1, job=first.job)

    async def scene(world):
        link = await world.greeted(credential)
        read = asyncio.create_task(records(f"jobs/talks/logs?after={first.pk}:10"))
        for _ in range(2):
            watch = await link.hear(Watch)
            is_first = watch.execution == str(first.pk)
            assert watch.offset == (10 if is_first else 0)
            await link.send_log(watch, watch.offset, b"whole\nhalf")
            await link.send_log(watch, watch.offset + 10, b" a line\n")
            await link.end_log(watch)
        found = await read
        assert [it for it in found if it[0] == str(first.pk)] == [
            (str(first.pk), "0 | whole\n", 16),
            (str(first.pk), "0 | half a line\n", 28),
        ]
        assert [it[2] for it in found if it[0] == str(second.pk)] == [6, 18]

    play(scene)


async def test_who_follows_a_job_from_its_end_is_told_where_that_is(records, link, execution):
    """Otherwise who reads on where a connection broke would miss what was printed meanwhile."""
    read = asyncio.create_task(records("jobs/talks/logs?tail=0&follow=true"))
    watch = await link.hear(Watch)
    await link.send_log(watch, 99, b"t")
    await link.end_log(watch)
    watch = await link.hear(Watch)
    await sync_to_async(Job.objects.update)(state="stopped")
    await link.end_log(watch)
    assert await read == [(str(execution.pk), "", 100)]


@pytest.mark.parametrize("after", ["x", "1:2", f"{'-' * 36}:1", f"{UUID(int=1)}:-1"])
def test_a_place_to_go_on_that_is_none_is_a_mistake_with_its_name(api, after):
    rows.job(name="talks")
    answer = api.get(f"jobs/talks/logs?after={after}")
    assert answer.status_code == 400
    found = answer.json()["errors"][0]
    assert (found["path"], found["message"]) == (
        "after",
        f'"{after}" is no list of places to go on',
    )
    assert "`execution:offset`" in found["hint"]


def test_of_a_task_that_printed_something_it_is_said_that_it_was_not_kept(reader):
    """Its node told again how it ended, as it remembers that for long: without what it printed."""
    node, _ = joined()
    execution = rows.execution(rows.job(), node, observed="running", cpu=0, memory=0)
    report = Report(str(execution.pk), Happened.COMPLETE, exit_code=0, stdout_size=100)
    endpoint.receive([Inbound(node.pk, 0, 1, 0, (), (report,))])

    async def scene(world):
        assert await reader(f"executions/{execution.pk}/logs") == (
            "[muster: 100 bytes on a node that is away]\n"
        )

    play(scene)
