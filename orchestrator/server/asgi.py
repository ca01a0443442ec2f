"""The root: what answers where, and the one call that goes upwards."""

import os
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orchestrator.server.settings")
http = get_asgi_application()  # Fills Django's registry: the imports below need it.

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import (  # noqa: E402
    AllowedHostsOriginValidator,
    OriginValidator,
    WebsocketDenier,
)
from django.conf import settings  # noqa: E402
from django.urls import path  # noqa: E402

from dashboard.consumers import LiveConsumer  # noqa: E402
from nodes.callbacks import Callbacks  # noqa: E402
from nodes.consumers import NodeConsumer  # noqa: E402
from orchestrator import endpoint  # noqa: E402
from orchestrator.endpoint import health  # noqa: E402
from orchestrator.planners import compute_forwarder  # noqa: E402
from orchestrator.planners.unsendable_orders import cannot_send  # noqa: E402
from orchestrator.server.backpressure import as_fast_as_read  # noqa: E402
from orchestrator.server.database_outages import answering_without_database  # noqa: E402

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
    if settings.CSRF_TRUSTED_ORIGINS:
        return OriginValidator(application, settings.CSRF_TRUSTED_ORIGINS)
    return AllowedHostsOriginValidator(application)


application = ProtocolTypeRouter(
    {
        "http": as_fast_as_read(answering_without_database(http, health.watch)),
        "websocket": URLRouter(
            [
                path("ws/nodes/", not_for_browsers(NodeConsumer.as_asgi(callbacks=CALLBACKS))),
                path(
                    "ws/live/",
                    as_fast_as_read(for_our_pages(AuthMiddlewareStack(LiveConsumer.as_asgi()))),
                ),
            ]
        ),
    }
)
