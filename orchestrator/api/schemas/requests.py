"""What every body and every query is made of, and what those of several lists have in common."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

#: Of one request; a list is read in pages of at most so many.
MOST = 500

Reason = Annotated[str, Meta(max_length=500, pattern="^[^\0]*$")]


class Body(Struct, forbid_unknown_fields=True):
    pass


class Nothing(Body):
    """The body of a request that has nothing to say; it may be left out."""


class Parameters(Body):
    """What an address takes after its question mark; nothing, when it is not said."""


class Paging(Parameters):
    """What every list takes.  A list's own filters are fields beside these; nothing else is."""

    limit: Annotated[int, Meta(ge=1, le=MOST, description="how many at most")] = 50
    cursor: Annotated[str, Meta(max_length=500, description="`next_cursor` of a page")] = ""
