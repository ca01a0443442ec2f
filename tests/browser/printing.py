"""A node over a real websocket that prints what the test says."""

from __future__ import annotations

import threading
from collections import defaultdict
from contextlib import ExitStack

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from nodes.protocol import codec
from nodes.protocol.messages import SUBPROTOCOL, LogChunk, LogEnd, Unwatch, Watch, Welcome
from tests.nodes.links import hello

MOST = 60_000


class Printing:
    """Answers watches out of *logs*, by execution and stream; ``watching`` are open."""

    def __init__(self, address: str, credential: str) -> None:
        self.logs: defaultdict[tuple[str, str], bytes] = defaultdict(bytes)
        self.asked: list[Watch] = []
        self.watching: dict[str, Watch] = {}
        self._at: dict[str, int] = {}
        self._credit: dict[str, int] = {}
        self._lock = threading.RLock()
        self._stack = ExitStack()
        link = connect(
            address.replace("http", "ws") + "/ws/nodes/",
            additional_headers={"Authorization": f"Node {credential}"},
            subprotocols=[SUBPROTOCOL],
            compression=None,
        )
        self._link = self._stack.enter_context(link)
        self._link.send(codec.encode(hello(partial=True)))
        welcome = codec.decode_from_server(self._link.recv(20))
        assert isinstance(welcome, Welcome)
        self._epoch = welcome.epoch
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def print(self, execution: object, text: str | bytes, stream: str = "stdout") -> None:
        with self._lock:
            self.logs[str(execution), stream] += text.encode() if isinstance(text, str) else text
            self._send()

    def close(self) -> None:
        self._stack.close()
        self._thread.join(20)

    def _answer(self) -> None:
        try:
            for frame in self._link:
                message = codec.decode_from_server(frame)
                with self._lock:
                    if isinstance(message, Watch):
                        self._begin(message)
                    elif isinstance(message, Unwatch):
                        self.watching.pop(message.watch, None)
                    self._send()
        except ConnectionClosed:
            pass

    def _begin(self, watch: Watch) -> None:
        if watch.watch in self.watching:
            self._credit[watch.watch] += watch.credit
            return
        self.asked.append(watch)
        size = len(self.logs[watch.execution, watch.stream])
        self._at[watch.watch] = max(0, size + watch.offset) if watch.offset < 0 else watch.offset
        self._credit[watch.watch] = watch.credit
        self.watching[watch.watch] = watch

    def _send(self) -> None:
        for name, watch in list(self.watching.items()):
            log = self.logs[watch.execution, watch.stream]
            while at := min(len(log) - self._at[name], self._credit[name], MOST):
                begin = self._at[name]
                chunk = LogChunk(self._epoch, name, begin, log[begin : begin + at])
                self._link.send(codec.encode_chunk(chunk))
                self._at[name] += at
                self._credit[name] -= at
            if not watch.follow and self._at[name] >= len(log):
                del self.watching[name]
                self._link.send(codec.encode(LogEnd(self._epoch, name)))
