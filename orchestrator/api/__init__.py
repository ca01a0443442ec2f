"""The HTTP API, `/api/v1`: what programs and the command line may see and do."""

from .application import api

__all__ = ["api"]
