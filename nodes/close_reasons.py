"""Close frames with their reason, from Daphne.

Daphne 4.2 sends the code of a ``websocket.close`` and drops its reason, so an agent's log would
have a number where there is a sentence.
"""

from __future__ import annotations

from typing import Any


def tell() -> None:
    """Have this process's Daphne send reasons; call it before the server is made."""
    from daphne import ws_protocol

    class Reasoned(ws_protocol.WebSocketProtocol):  # type: ignore[misc] # Daphne has no types
        def handle_reply(self, message: dict[str, Any]) -> None:
            if message.get("type") == "websocket.close" and self.state == self.STATE_OPEN:
                self.sendClose(code=message.get("code") or 1000, reason=message.get("reason"))
            else:
                super().handle_reply(message)

    ws_protocol.WebSocketFactory.protocol = Reasoned
