"""What executions hold of their nodes: taken when they are placed, given back when they end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

from django.db import connection

from nodes.protocol.resources import Resources


def release(freed: Mapping[UUID, Resources]) -> None:
    """Give resources back to nodes that the caller has locked.

    A node that has shrunk below what was allocated on it keeps no more than it advertises.
    """
    if freed:
        _execute(_RELEASE, [list(freed), *_columns(freed.values())])


def reserve(taken: Mapping[UUID, Resources], order_revs: Mapping[UUID, int]) -> None:
    """Allocate resources of locked nodes, and set their newest order revision.

    Raises IntegrityError when a node would be overcommitted: check first, this is the belt.
    """
    if order_revs:
        need = [taken.get(node, Resources()) for node in order_revs]
        _execute(_RESERVE, [list(order_revs), list(order_revs.values()), *_columns(need)])


_RELEASE = """
    UPDATE nodes_node n SET
        allocated_cpu = n.allocated_cpu - f.cpu,
        allocated_memory = n.allocated_memory - f.memory,
        allocated_disk = n.allocated_disk - f.disk,
        allocated_gpu = n.allocated_gpu - f.gpu,
        capacity_cpu = greatest(n.advertised_cpu, n.allocated_cpu - f.cpu),
        capacity_memory = greatest(n.advertised_memory, n.allocated_memory - f.memory),
        capacity_disk = greatest(n.advertised_disk, n.allocated_disk - f.disk),
        capacity_gpu = greatest(n.advertised_gpu, n.allocated_gpu - f.gpu)
    FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
        AS f(id, cpu, memory, disk, gpu)
    WHERE n.id = f.id
"""

_RESERVE = """
    UPDATE nodes_node n SET
        order_rev = f.order_rev,
        allocated_cpu = n.allocated_cpu + f.cpu,
        allocated_memory = n.allocated_memory + f.memory,
        allocated_disk = n.allocated_disk + f.disk,
        allocated_gpu = n.allocated_gpu + f.gpu
    FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
        AS f(id, order_rev, cpu, memory, disk, gpu)
    WHERE n.id = f.id
"""


def _columns(amounts: Iterable[Resources]) -> list[list[int]]:
    rows = [amount.astuple() for amount in amounts]
    return [list(column) for column in zip(*rows, strict=True)]


def _execute(sql: str, parameters: list[list[UUID] | list[int]]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
