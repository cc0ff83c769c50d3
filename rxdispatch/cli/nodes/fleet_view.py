"""``FleetView``: what there is to see of a fleet, before it has a form."""

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
"""Of how long ago something was, in seconds; and what they are called."""

# What needs a look comes first.
_STATUSES: Final = (NodeStatus.SUSPECT, NodeStatus.DRAINING, NodeStatus.READY)


@attrs.frozen
class NodeView:
    """
    A node and when it was last heard of.

    Attributes:
        node: The node.
        silence: Seconds since its last heartbeat, from a minute on whole minutes, and so on;
            None where that is not known.
    """

    node: Node
    silence: int | None


@attrs.frozen(kw_only=True)
class FleetView:
    """
    A fleet as it is now. Two that are equal look the same.

    Attributes:
        mode: Of the feed.
        stale: Whole seconds since the last proof that nothing was missed, None while that proof
            still holds.
        pool: The pool that is looked at; None for all.
        known: How many nodes the feed knows, of any pool.
        statuses: How many nodes there are of each status.
        rate: Changes per second.
        gaps: How often something had been missed.
        catch_ups: How often that was made up for.
        nodes: The first of them, in order.
        hidden: How many there are beside those.
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
        Look at what *feed* knows, asking nobody.

        Args:
            feed: The fleet.
            observed: What was seen of its changes.
            now: Seconds, on the clock of *observed*.
            pool: Leave out other pools.
            sort: What comes first.
            most: Leave out nodes after so many; None for all of them.
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
        """Return it as what JSON can hold."""
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
    """Return a node as what JSON can hold."""
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
    """Return a change as what JSON can hold; without what was before."""
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
    # As exact as it is shown: what looks the same must be the same.
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
