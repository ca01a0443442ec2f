"""The root: what answers where, and the one call that goes upwards."""

import os
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orchestrator.server.settings")
http = get_asgi_application()  # Fills Django's registry: the imports below need it.

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import WebsocketDenier  # noqa: E402
from django.urls import path, re_path  # noqa: E402

from dashboard.consumers import LiveConsumer  # noqa: E402
from nodes.callbacks import Callbacks  # noqa: E402
from nodes.consumers import NodeConsumer  # noqa: E402
from orchestrator import endpoint  # noqa: E402
from orchestrator.endpoint import health  # noqa: E402
from orchestrator.planners import compute_forwarder  # noqa: E402
from orchestrator.planners.unsendable_orders import cannot_send  # noqa: E402
from orchestrator.server import origins  # noqa: E402
from orchestrator.server.backpressure import (  # noqa: E402
    as_fast_as_read,
    uncounted_once_greeted,
)
from orchestrator.server.database_outages import answering_without_database  # noqa: E402
from orchestrator.server.front_door import at_the_door  # noqa: E402

# Channels and Django's path() each have a type of their own for what is one thing.
Application = Any

CALLBACKS = Callbacks(
    receive=endpoint.receive,
    orders=compute_forwarder.orders,
    desired=compute_forwarder.desired,
    reconnect=endpoint.reconnect,
    degraded=endpoint.degraded,
    cannot_send=cannot_send,
    record=endpoint.record_node,
)
"""The one way up: what nodes say goes to the Endpoint, what they must be told comes from us."""


def not_for_browsers(application: Application) -> Application:
    """Refuse every handshake that carries an Origin: only browsers send one, and nodes are none."""

    async def answer(scope: Any, receive: Any, send: Any) -> Any:
        names = {name for name, _value in scope["headers"]}
        inner = WebsocketDenier() if b"origin" in names else application
        return await inner(scope, receive, send)

    return answer


def for_our_pages(application: Application) -> Application:
    """Refuse a handshake that does not come from a page of ours; without an Origin, too."""

    async def answer(scope: Any, receive: Any, send: Any) -> Any:
        inner = application if origins.is_ours(scope["headers"]) else WebsocketDenier()
        return await inner(scope, receive, send)

    return answer


nodes = NodeConsumer.as_asgi(callbacks=CALLBACKS)
application = at_the_door(
    ProtocolTypeRouter(
        {
            "http": as_fast_as_read(answering_without_database(http, health.watch)),
            "websocket": URLRouter(
                [
                    path("ws/nodes/", uncounted_once_greeted(not_for_browsers(nodes))),
                    path(
                        "ws/live/",
                        as_fast_as_read(for_our_pages(AuthMiddlewareStack(LiveConsumer.as_asgi()))),
                    ),
                    re_path("", WebsocketDenier.as_asgi()),  # Nothing else: no route is an error.
                ]
            ),
        }
    )
)
