"""``FleetView``: the values of a fleet that ``nodes watch`` shows."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias, get_args

import attrs

from rxdispatch.cli.nodes.observed import Observed
from rxdispatch.node import Mode, Node, NodeChange, NodeStatus
from rxdispatch.nodes.feed.feed import Feed

__all__ = ["SORTS", "UNITS", "FleetView", "NodeView", "Sort", "change_document", "node_document"]

Sort: TypeAlias = Literal["id", "pool", "status", "jobs", "version", "heartbeat"]
SORTS: Final[tuple[Sort, ...]] = get_args(Sort)

UNITS: Final = {86400: "d", 3600: "h", 60: "m"}
"""The units of an age: their seconds and their names."""

# Nodes that need attention come first.
_STATUSES: Final = (NodeStatus.SUSPECT, NodeStatus.DRAINING, NodeStatus.READY)


@attrs.frozen
class NodeView:
    """
    A node with the time since its last heartbeat.

    Attributes:
        node: The node.
        silence: Seconds since its last heartbeat, rounded down to a whole second, minute, hour or
            day; None if unknown.
    """

    node: Node
    silence: int | None


@attrs.frozen(kw_only=True)
class FleetView:
    """
    A fleet at one moment, with values rounded as they are shown; equal views look the same.

    Attributes:
        mode: The mode of the feed.
        stale: Whole seconds since the last proof that nothing was missed; None while the feed is
            current.
        pool: The shown pool; None for all.
        known: How many nodes the feed has, of any pool.
        statuses: The number of nodes by status.
        rate: Changes per second.
        gaps: How many gaps the feed has noticed.
        catch_ups: How many catch-ups the feed has made.
        nodes: The first nodes, in order.
        hidden: How many more nodes there are.
    """

    mode: Mode
    stale: int | None
    pool: str | None
    known: int
    statuses: Mapping[NodeStatus, int]
    rate: float
    gaps: int
    catch_ups: int
    nodes: tuple[NodeView, ...]
    hidden: int

    @classmethod
    def of(
        cls,
        feed: Feed,
        observed: Observed,
        now: float,
        *,
        pool: str | None,
        sort: Sort,
        most: int | None,
    ) -> FleetView:
        """
        Return the view of *feed*, without a call to the server.

        Args:
            feed: The feed.
            observed: The observed changes.
            now: Seconds on the clock of *observed*.
            pool: The pool to show; None for all.
            sort: The order of the nodes.
            most: The most nodes to show; None for all.
        """
        nodes = feed.nodes(pool)
        statuses = dict.fromkeys(reversed(_STATUSES), 0)
        for node in nodes:
            statuses[node.status] += 1
        key = _key(sort, feed)
        first = sorted(nodes, key=key) if most is None else heapq.nsmallest(most, nodes, key=key)
        stats = feed.stats
        since = stats.staleness if math.isfinite(stats.staleness) else 0.0
        return cls(
            mode=feed.mode,
            stale=None if feed.current else int(since),
            pool=pool,
            known=stats.nodes,
            statuses=statuses,
            rate=round(observed.rate(now), 1),
            gaps=stats.gaps,
            catch_ups=stats.catch_ups,
            nodes=tuple(_view(node, feed) for node in first),
            hidden=len(nodes) - len(first),
        )

    def document(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "mode": self.mode.value,
            "stale": self.stale,
            "pool": self.pool,
            "known": self.known,
            "statuses": {status.value: count for status, count in self.statuses.items()},
            "gaps": self.gaps,
            "catch_ups": self.catch_ups,
            "nodes": [{**node_document(view.node), "silence": view.silence} for view in self.nodes],
        }


def node_document(node: Node) -> dict[str, Any]:
    """Return a node as plain values for JSON."""
    return {
        "id": node.id,
        "pool": node.pool,
        "status": node.status.value,
        "capacity": node.capacity,
        "current_jobs": node.current_jobs,
        "labels": dict(node.labels),
        "state": dict(node.state),
        "version": node.version,
        "seq": node.seq,
    }


def change_document(change: NodeChange) -> dict[str, Any]:
    """Return a change as plain values for JSON, without the node before the change."""
    return {
        "kind": change.kind,
        "epoch": change.epoch,
        "seq": change.seq,
        "node": None if change.node is None else node_document(change.node),
    }


def _view(node: Node, feed: Feed) -> NodeView:
    silence = feed.silence(node.id)
    if silence is None:
        return NodeView(node, None)
    # Rounded as it is shown: views that look the same must be equal.
    unit = next((unit for unit in UNITS if silence >= unit), 1)
    return NodeView(node, int(silence // unit) * unit)


def _key(sort: Sort, feed: Feed) -> Callable[[Node], tuple[Any, ...]]:
    keys: dict[Sort, Callable[[Node], tuple[Any, ...]]] = {
        "id": lambda node: (node.id,),
        "pool": lambda node: (node.pool, node.id),
        "status": lambda node: (_STATUSES.index(node.status), node.id),
        "jobs": lambda node: (-node.current_jobs / max(1, node.capacity), node.id),
        "version": lambda node: (-node.version, node.id),
        "heartbeat": lambda node: (-(feed.silence(node.id) or 0.0), node.id),
    }
    return keys[sort]
