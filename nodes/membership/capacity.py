"""How much of what a node offers may be used: no more than was approved, whatever it says later.

What a node offers at its approval is what was approved.  Less is believed at once; more waits for
an operator who approves the node again.
"""

from __future__ import annotations

from nodes.errors import InvalidOffer
from nodes.models import Node
from nodes.protocol.lifecycle import Approval
from nodes.protocol.resources import DIMENSIONS, Resources

#: No machine has more; who says so is wrong, and sums must stay within 63 bits.
MOST = Resources(cpu=10_000_000, memory=2**50, disk=2**56, gpu=4096)

#: What is written here.
COLUMNS = tuple(
    f"{what}_{dimension}"
    for what in ("advertised", "approved", "capacity")
    for dimension in DIMENSIONS
)


def checked(offer: Resources) -> Resources:
    """*offer* within what machines have; raises InvalidOffer."""
    for dimension, amount in zip(DIMENSIONS, offer.astuple(), strict=True):
        if amount < 0:
            raise InvalidOffer(amount=amount, dimension=dimension)
    return Resources(*(min(pair) for pair in zip(offer.astuple(), MOST.astuple(), strict=True)))


def offer(node: Node, offered: Resources) -> None:
    """Take over what the node offers, in a row that the caller has locked and saves."""
    for dimension in DIMENSIONS:
        setattr(node, f"advertised_{dimension}", getattr(offered, dimension))
    if node.approval == Approval.APPROVED and node.approved_cpu is None:
        accept(node)  # It was approved before it had offered anything.
    _bound(node)


def accept(node: Node) -> None:
    """Approve all that the node offers now, in a row that the caller has locked and saves."""
    offered = [getattr(node, f"advertised_{dimension}") for dimension in DIMENSIONS]
    if any(offered):
        for dimension, amount in zip(DIMENSIONS, offered, strict=True):
            setattr(node, f"approved_{dimension}", amount)
        _bound(node)


def _bound(node: Node) -> None:
    """What is allocated already stays within capacity, however far the node has shrunk."""
    for dimension in DIMENSIONS:
        amount = getattr(node, f"advertised_{dimension}")
        approved = getattr(node, f"approved_{dimension}")
        if approved is not None:
            amount = min(amount, approved)
        allocated = getattr(node, f"allocated_{dimension}")
        setattr(node, f"capacity_{dimension}", max(amount, allocated))
