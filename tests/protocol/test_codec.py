"""Whatever is said comes across as it was said, or is refused."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.protocol import codec, messages
from nodes.protocol.messages import MAX_FRAME, LogChunk
from nodes.protocol.resources import Resources

counts = st.integers(0, 2**53)
names = st.text(min_size=1, max_size=128)
texts = st.text(max_size=200)
seconds = st.floats(0, 1e9)
resources = st.builds(Resources, *(st.integers(-(2**53), 2**53) for _ in range(4)))
dicts = st.dictionaries(st.text(max_size=20), texts, max_size=4)
tasks = st.builds(
    messages.Task,
    driver=names,
    command=st.lists(texts, max_size=4).map(tuple),
    env=dicts,
    config=dicts,
)
orders = st.builds(
    messages.Order,
    execution=names,
    want=st.sampled_from(messages.Want),
    rev=counts,
    task=st.none() | tasks,
    resources=resources,
    timeout=st.none() | seconds,
    grace=seconds,
    reason=texts,
)
reports = st.builds(
    messages.Report,
    execution=names,
    happened=st.sampled_from(messages.Happened),
    exit_code=st.none() | st.integers(-(2**31), 2**31 - 1),
    code=st.text(max_size=64),
    message=texts,
    hint=texts,
    retryable=st.booleans(),
    ran=st.none() | seconds,
    stdout=texts,
    stderr=texts,
    stdout_size=counts,
    stderr_size=counts,
)
holds = st.builds(messages.Held, execution=names, state=st.sampled_from(messages.Holding))
many_orders = st.lists(orders, max_size=4).map(tuple)

from_node = st.one_of(
    st.builds(
        messages.Hello,
        version=st.integers(0, 99),
        instance=names,
        run=counts,
        ledger=names,
        boot=names,
        resources=resources,
        attributes=dicts,
        order_rev=counts,
        holds=st.lists(holds, max_size=4).map(tuple),
        agent_version=texts,
    ),
    st.builds(
        messages.Reports,
        epoch=counts,
        seq=counts,
        order_rev=counts,
        items=st.lists(reports, max_size=4).map(tuple),
    ),
    st.builds(
        messages.Heartbeat,
        epoch=counts,
        order_rev=counts,
        digest=texts,
        running=st.integers(0, 2**31 - 1),
        load=seconds,
    ),
    st.builds(messages.LogEnd, epoch=counts, watch=names, reason=texts),
    st.builds(messages.Goodbye, epoch=counts, reason=texts),
)
from_server = st.one_of(
    st.builds(
        messages.Welcome,
        epoch=counts,
        node=names,
        order_rev=counts,
        desired=many_orders,
        heartbeat=seconds,
        approved=st.booleans(),
        more=st.booleans(),
    ),
    st.builds(
        messages.Desired, epoch=counts, order_rev=counts, items=many_orders, more=st.booleans()
    ),
    st.builds(messages.Orders, epoch=counts, after=counts, order_rev=counts, items=many_orders),
    st.builds(messages.Ack, epoch=counts, seq=counts),
    st.builds(messages.Pulse, epoch=counts, resync=st.booleans()),
    st.builds(
        messages.Watch,
        epoch=counts,
        watch=names,
        execution=names,
        stream=texts,
        offset=st.integers(-(2**53), 2**53),
        credit=counts,
        follow=st.booleans(),
    ),
    st.builds(messages.Unwatch, epoch=counts, watch=names),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
TYPES = [
    kind.__struct_config__.tag
    for union in (messages.FromNode, messages.FromServer)
    for kind in get_args(union)
]
COUNTS = range(2**53 + 1)
#: Values that one or another message may have, and some that none may.
said = st.fixed_dictionaries(
    {},
    optional={
        "epoch": st.integers() | counts,
        "seq": st.integers() | counts,
        "order_rev": counts,
        "items": st.lists(json_values, max_size=2),
        "after": counts,
        "watch": names,
        "digest": texts | json_values,
    },
)


@given(from_node)
def test_what_a_node_says_comes_across(message):
    assert codec.decode_from_node(codec.encode(message)) == message


@given(from_server)
def test_what_the_orchestrator_says_comes_across(message):
    assert codec.decode_from_server(codec.encode(message)) == message


@given(st.builds(LogChunk, epoch=counts, watch=names, offset=counts, data=st.binary()))
def test_log_chunks_come_across(chunk):
    assert codec.decode_chunk(codec.encode_chunk(chunk)) == chunk


@given(from_node)
def test_the_size_of_a_message_is_that_of_its_frame(message):
    assert codec.size(message) == len(codec.encode(message).encode())


@given(st.text() | st.binary() | json_values.map(msgspec.json.encode))
def test_anything_else_is_malformed_and_nothing_worse(frame):
    for decode in (codec.decode_from_node, codec.decode_from_server):
        with pytest.raises(codec.Malformed):
            decode(frame)


@given(st.sampled_from(TYPES), said)
def test_a_known_type_with_nonsense_in_it_is_that_message_or_malformed(kind, fields):
    frame = msgspec.json.encode({"type": kind, **fields})
    theirs = kind in {it.__struct_config__.tag for it in get_args(messages.FromNode)}
    right, wrong = codec.decode_from_node, codec.decode_from_server
    if not theirs:
        right, wrong = wrong, right
    with pytest.raises(codec.Malformed):
        wrong(frame)
    try:
        message = right(frame)
    except codec.Malformed:
        return
    assert message.__struct_config__.tag == kind
    assert right(codec.encode(message)) == message
    assert all(getattr(message, it, 0) in COUNTS for it in ("epoch", "seq"))


@given(st.binary())
def test_binary_noise_is_malformed(frame):
    with pytest.raises(codec.Malformed):
        codec.decode_chunk(frame)


@pytest.mark.parametrize("number", [2**31, 2**63, 2**64, 10**400])
def test_a_number_that_no_column_can_hold_is_malformed(number):
    for frame in (
        f'{{"type":"heartbeat","epoch":1,"order_rev":0,"digest":"","running":{number}}}',
        f'{{"type":"reports","epoch":1,"seq":1,"order_rev":0,"items":'
        f'[{{"execution":"e","happened":"fail","exit_code":-{number + 1}}}]}}',
    ):
        with pytest.raises(codec.Malformed):
            codec.decode_from_node(frame)


def test_nesting_without_end_is_malformed():
    with pytest.raises(codec.Malformed):
        codec.decode_from_node("[" * 100_000)


def test_too_large_is_said_at_both_ends():
    long = "x" * MAX_FRAME
    with pytest.raises(codec.TooLarge, match="Goodbye takes"):
        codec.encode(messages.Goodbye(1, long))
    with pytest.raises(codec.TooLarge, match="limit 262144"):
        codec.decode_from_node('"' + long + '"')
    with pytest.raises(codec.TooLarge):
        codec.encode_chunk(LogChunk(1, "w", 0, b"x" * MAX_FRAME))


def test_a_frame_may_be_as_long_as_the_limit_and_no_byte_longer():
    room = MAX_FRAME - codec.size(messages.Goodbye(1, "x")) + 1
    assert len(codec.encode(messages.Goodbye(1, "x" * room))) == MAX_FRAME
    with pytest.raises(codec.TooLarge, match=f"^Goodbye takes {MAX_FRAME + 1} bytes, limit 262144"):
        codec.encode(messages.Goodbye(1, "x" * (room + 1)))
    large = 2**16  # The length of the data takes as many bytes from here on.
    room = MAX_FRAME - len(codec.encode_chunk(LogChunk(1, "w", 0, b"x" * large))) + large
    longest = LogChunk(1, "w", 0, b"x" * room)
    assert codec.decode_chunk(codec.encode_chunk(longest)) == longest
    too_long = f"^a log chunk takes {MAX_FRAME + 1} bytes, limit 262144"
    with pytest.raises(codec.TooLarge, match=too_long):
        codec.encode_chunk(LogChunk(1, "w", 0, b"x" * (room + 1)))
    with pytest.raises(codec.TooLarge, match=f"^a frame of {MAX_FRAME + 1} bytes, limit 262144"):
        codec.decode_chunk(b"x" * (MAX_FRAME + 1))
