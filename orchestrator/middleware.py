"""What stands between Django's middleware and our views."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import sync_only_middleware

Answer = Callable[[HttpRequest], HttpResponseBase]


@sync_only_middleware
def one_thread_hop(get_response: Answer) -> Answer:
    """Answer requests in one thread, middleware and view alike; stands last.

    Between async handlers Django sends each middleware's hooks to a thread by themselves, twenty
    hops a request.  With a sync one at the end the whole chain runs in one thread, after one hop.
    """
    return get_response
