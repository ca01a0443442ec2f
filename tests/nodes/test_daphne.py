"""What only a real server shows: status codes, close frames with reasons, limits, broken links."""

from contextlib import ExitStack, suppress

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import unix_connect

from nodes.models import Node
from nodes.protocol import codec
from nodes.protocol.messages import MAX_FRAME, SUBPROTOCOL, Ack, Close, Reports, Welcome
from tests.nodes.links import hello, joined
from tests.served import start

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.processes]


@pytest.fixture
def served(tmp_path, eventually):
    """A function that opens a link to a Daphne of this test's own."""
    socket = tmp_path / "web.sock"
    process = start("-u", str(socket), application="tests.nodes.served:application")
    links = ExitStack()

    def link(credential, protocols=(SUBPROTOCOL,), **options):
        headers = {"Authorization": f"Node {credential}"} if credential else {}
        return links.enter_context(
            unix_connect(
                str(socket),
                "ws://web/ws/nodes/",
                additional_headers=headers,
                subprotocols=list(protocols) or None,
                compression=None,
                close_timeout=1,
                **options,
            )
        )

    try:
        eventually(socket.exists)
        with links:
            yield link
    finally:
        process.terminate()
        process.wait(20)


def greet(link):
    link.send(codec.encode(hello()))
    welcome = codec.decode_from_server(link.recv(20))
    assert isinstance(welcome, Welcome)
    return welcome


def closed(link):
    try:
        while True:
            link.recv(20)
    except ConnectionClosed:
        return link.protocol.close_code, link.protocol.close_reason


def test_a_session_over_a_real_socket(served):
    node, credential = joined()
    link = served(credential)
    assert link.subprotocol == SUBPROTOCOL
    welcome = greet(link)
    link.send(codec.encode(Reports(welcome.epoch, 1, 0)))
    assert codec.decode_from_server(link.recv(20)) == Ack(welcome.epoch, 1)
    assert Node.objects.get(pk=node.pk).connection == "connected"


@pytest.mark.parametrize("credential", [None, "nt_wrong"])
def test_who_does_not_sign_in_gets_403(served, credential):
    with pytest.raises(InvalidStatus) as refused:
        served(credential)
    assert refused.value.response.status_code == 403


def test_a_refusal_carries_its_code_and_its_reason(served):
    _, credential = joined()
    link = served(credential)
    greet(link)
    link.send("nonsense")
    code, reason = closed(link)
    assert code == Close.MALFORMED
    assert "JSON" in reason
    assert closed(served(credential, protocols=()))[0] == Close.UNSUPPORTED


def test_a_frame_beyond_the_limit_ends_the_link_and_the_server_goes_on(served):
    _, credential = joined()
    link = served(credential)
    greet(link)
    with suppress(ConnectionClosed):  # Daphne may break the link while this is still sending.
        link.send(" " * (MAX_FRAME + 1))
    assert closed(link)[0] != 1000
    assert greet(served(credential)).epoch == 2


def test_fragments_that_never_end_end_the_link(served):
    _, credential = joined()
    link = served(credential)
    greet(link)

    def fragments():
        for _ in range(2 * MAX_FRAME // 1024):
            yield " " * 1024

    with suppress(ConnectionClosed):
        link.send(fragments())
    assert closed(link)[0] != 1000
    assert greet(served(credential)).epoch == 2


def test_a_link_that_breaks_leaves_its_node_disconnected(served, eventually):
    node, credential = joined()
    link = served(credential)
    greet(link)
    link.socket.shutdown(2)
    eventually(lambda: Node.objects.get(pk=node.pk).connection == "disconnected")


def test_fifty_links_at_once(served):
    nodes = [joined() for _ in range(50)]
    links = [served(credential) for _, credential in nodes]
    for link in links:
        link.send(codec.encode(hello()))
    assert all(isinstance(codec.decode_from_server(it.recv(20)), Welcome) for it in links)
