"""What tasks print: live from the node, or what was kept of it when it is away.

Nothing is read ahead of who asks: the next piece is fetched when it is asked for.
"""

from .execution import of_execution
from .job import MOST_NAMED, of_job
from .lines import Lines, cut_lines
from .reading import Piece, Reading, Stream, ask

__all__ = [
    "MOST_NAMED",
    "Lines",
    "Piece",
    "Reading",
    "Stream",
    "ask",
    "cut_lines",
    "of_execution",
    "of_job",
]
