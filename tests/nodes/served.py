"""A consumer, to be put behind a real Daphne."""

from nodes.consumers import NodeConsumer
from tests.nodes.links import Above

application = NodeConsumer.as_asgi(callbacks=Above().callbacks())
