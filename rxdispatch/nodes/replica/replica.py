"""``Replica``: the nodes in this process (L1), and the rules for applying changes to them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from typing import Final

from rxdispatch.node import ChangeKind, Node, NodeChange, NodeStatus
from rxdispatch.nodes.records import Message, NodeRow
from rxdispatch.nodes.replica.followers import Followers

__all__ = ["Replica"]

# Jitter, so that nodes that were registered together do not become suspect all at once: seconds,
# and at most this share of the ttl.
_SPREAD: Final = 0.04
_SHARE: Final = 0.05


class Replica:
    """
    The nodes by id, each with the number of the last change that it contains.

    INVARIANT. The replica contains all changes up to ``high``. A node that was looked up or
    written by this process may be ahead: then its own ``seq`` says how far, or ``_removed`` if it
    is absent, and older changes of it are ignored. So a node only goes forward, even if changes
    arrive late, twice or out of order.

    Nothing here waits; all of it runs on the loop.

    Args:
        nodes: Where the nodes are kept, by id; only the replica writes to it.
        clock: Returns seconds that never go backwards.
        followers: Everything that is updated with each change.
    """

    def __init__(
        self, nodes: dict[str, Node], clock: Callable[[], float], followers: Followers
    ) -> None:
        self.nodes = nodes
        self._epoch = b""
        self._epoch_text = ""
        self.high = 0
        self._clock = clock
        self._followers = followers
        self._removed: dict[str, int] = {}
        self._lapse_times: dict[str, float] = {}
        self._next_lapse = math.inf
        self._heartbeats: dict[str, float] | None = None

    @property
    def epoch(self) -> bytes:
        """The epoch of the registry's data: a new one means that data was lost or replaced."""
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: bytes) -> None:
        self._epoch, self._epoch_text = epoch, epoch.hex()

    # -- applying ----------------------------------------------------------------------------

    def follow(self, message: Message) -> bool:
        """
        Apply the next message of the stream.

        Returns:
            False if there is a gap before it, or a part of it could not be parsed. Then ``high``
            stays as it is, and the missing changes must be fetched.
        """
        if message.first > self.high + 1 or message.epoch != self._epoch:
            return False
        last = message.first + message.length - 1
        if last <= self.high:
            return True
        for row in message.rows:
            if row.seq > self.high:
                self._apply(row)
        if message.bad:
            return False
        self._seen(last)
        return True

    def fill(self, rows: Iterable[NodeRow], up_to: int, *, complete: bool = False) -> None:
        """
        Apply nodes that were read from the registry or written to it.

        Args:
            rows: The nodes as they were at the number *up_to*.
            up_to: That number.
            complete: Whether *rows* has every change between ``high`` and *up_to*.
        """
        stale = up_to < self.high
        for row in rows:
            if stale and (row.seq <= self.high) and row.id not in self.nodes:
                continue  # removed after the reply was made, as the replica already knows
            if stale and row.node is None and not row.version:
                continue
            self._apply(row)
        if complete:
            self._seen(up_to)

    def replace(self, epoch: bytes, rows: Iterable[NodeRow], up_to: int) -> None:
        """Replace the fleet with *rows*, all nodes as of *up_to*, and publish the differences."""
        before = dict(self.nodes)
        self.nodes.clear()
        # If numbers went back, the data has begun a new life too, even under the same epoch.
        new_life = epoch != self.epoch or up_to < self.high
        self.epoch = epoch
        self._removed = {} if new_life else {n: s for n, s in self._removed.items() if s > up_to}
        self._lapse_times.clear()
        if self._heartbeats is not None:
            self._heartbeats.clear()
        self._next_lapse = math.inf
        self.high = 0
        changes: list[NodeChange] = []
        for row in rows:
            node = row.node
            if node is None or row.seq <= self._removed.get(row.id, 0):
                continue
            previous = before.pop(row.id, None)
            if previous is not None and not new_life and previous.seq > row.seq:
                node = previous  # newer: it was looked up a moment ago
            if row.ttl > 0:
                self._extend(row)
            else:
                self._note_heartbeat(row)
                node = node._marked(NodeStatus.SUSPECT)
            self.nodes[row.id] = node
            if previous is not None and not new_life and row.birth > previous.seq:
                changes.append(
                    NodeChange("removed", previous, previous, self._epoch_text, row.birth - 1)
                )
                previous = None
            if previous is None or (previous is not node and not _alike(previous, node)):
                kind: ChangeKind = "added" if previous is None else "updated"
                changes.append(NodeChange(kind, node, previous, self._epoch_text, node.seq))
        for previous in before.values():
            if not new_life and previous.seq > up_to:
                self.nodes[previous.id] = previous
            else:
                changes.append(NodeChange("removed", previous, previous, self._epoch_text, up_to))
        self.high = up_to
        self._followers.replaced()
        for change in changes:
            self._followers.publish(change)

    # -- time --------------------------------------------------------------------------------

    @property
    def due(self) -> bool:
        """Whether the ttl of a node may have run out."""
        return self._clock() >= self._next_lapse

    def lapse(self) -> None:
        """Mark the nodes whose ttl has run out as suspect, and have them looked up."""
        now = self._clock()
        if now >= self._next_lapse:
            for node in [node for node, at in self._lapse_times.items() if at <= now]:
                # A subscriber may call the feed, which may call this method again.
                if self._lapse_times.pop(node, None) is not None:
                    self._suspect(node)
                    self._followers.doubt(node)
            self._next_lapse = min(self._lapse_times.values(), default=math.inf)
        if self._next_lapse < math.inf:
            self._followers.lapse_at(self._next_lapse)

    def suspect_all(self) -> None:
        """Mark every node as suspect, because nothing can be proven any more."""
        for node in tuple(self.nodes):
            self._suspect(node)

    def remaining(self, name: str) -> float:
        """Return the seconds until a node lapses; 0 once it has lapsed."""
        return max(0.0, self._lapse_times.get(name, 0.0) - self._clock())

    def suspects(self) -> list[str]:
        """Return the ids of the suspect nodes."""
        return [n.id for n in self.nodes.values() if n.status is NodeStatus.SUSPECT]

    def _suspect(self, name: str) -> None:
        previous = self.nodes.get(name)
        if previous is not None and previous.status is not NodeStatus.SUSPECT:
            node = self.nodes[name] = previous._marked(NodeStatus.SUSPECT)
            self._followers.changed(previous, node)
            self._publish("suspect", node, previous, node.seq)

    def _extend(self, row: NodeRow) -> None:
        name, ttl = row.id, row.ttl
        self._note_heartbeat(row)
        if ttl <= 0:
            # The registry knows that the node has lapsed, and keeps it for now.
            self._lapse_times.pop(name, None)
            self._suspect(name)
            return
        at = self._clock() + ttl + min(_SPREAD, _SHARE * ttl) * random.random()
        self._lapse_times[name] = at
        if at < self._next_lapse:
            self._next_lapse = at
            self._followers.lapse_at(at)

    # -- heartbeats --------------------------------------------------------------------------

    def keep_heartbeats(self) -> None:
        """Remember each node's last heartbeat from now on; takes about 150 bytes a node."""
        if self._heartbeats is None:
            self._heartbeats = {}

    def _note_heartbeat(self, row: NodeRow) -> None:
        if self._heartbeats is not None:
            self._heartbeats[row.id] = self._clock() - row.silence

    def silence(self, name: str) -> float | None:
        """Return the seconds since the last heartbeat of a node; None if that is unknown."""
        heard = None if self._heartbeats is None else self._heartbeats.get(name)
        return None if heard is None else max(0.0, self._clock() - heard)

    # -- rows --------------------------------------------------------------------------------

    def _apply(self, row: NodeRow) -> None:
        name, seq, node, version = row.id, row.seq, row.node, row.version
        previous = self.nodes.get(name)
        if previous is not None:
            if seq <= previous.seq:
                if seq == previous.seq and node is not None:
                    self._confirm(previous, row)
                return
        elif self._removed and seq <= self._removed.get(name, 0):
            return
        if node is not None:
            self.nodes[name] = node
            if self._removed:
                self._removed.pop(name, None)
            self._followers.changed(previous, node)
            if previous is not None and row.birth > previous.seq:
                # It was removed and registered again during a gap, so this is a new life, with
                # slots and versions of its own.
                self._publish("removed", previous, previous, row.birth - 1)
                previous = None
            self._publish("added" if previous is None else "updated", node, previous, seq)
            self._extend(row)
        elif version:
            self._touch(previous, row)
        else:
            if seq > self.high:
                self._removed[name] = seq
            if previous is not None:
                del self.nodes[name]
                self._lapse_times.pop(name, None)
                if self._heartbeats is not None:
                    self._heartbeats.pop(name, None)
                self._followers.changed(previous, None)
                self._publish("removed", previous, previous, seq)

    def _touch(self, previous: Node | None, row: NodeRow) -> None:
        """Apply a heartbeat without news: nothing to publish, unless the node was suspect."""
        if previous is None or previous.version != row.version - 1:
            self._followers.doubt(row.id)
            return
        if previous.status is NodeStatus.SUSPECT:
            # The heartbeat does not say whether the node is ready or draining.
            self._followers.doubt(row.id)
        node = self.nodes[row.id] = previous._renewed(row.version, row.seq)
        self._followers.changed(previous, node)
        self._extend(row)

    def _confirm(self, previous: Node, row: NodeRow) -> None:
        """Apply a look-up that found no change: a suspect node is alive again."""
        node = row.node
        assert node is not None
        if row.ttl > 0 and previous.status is NodeStatus.SUSPECT:
            self.nodes[node.id] = node
            self._followers.changed(previous, node)
            self._publish("updated", node, previous, node.seq)
        self._extend(row)

    def _seen(self, up_to: int) -> None:
        if up_to > self.high:
            self.high = up_to
            if self._removed:
                self._removed = {name: seq for name, seq in self._removed.items() if seq > up_to}

    def synced(self) -> None:
        """Tell the subscribers that the replica has caught up."""
        self._followers.publish(NodeChange("synced", None, None, self._epoch_text, self.high))

    def _publish(self, kind: ChangeKind, node: Node, previous: Node | None, seq: int) -> None:
        self._followers.publish(NodeChange(kind, node, previous, self._epoch_text, seq))


def _alike(one: Node, other: Node) -> bool:
    # In another life of the data the numbers may be equal while the rest differs.
    return (
        (one.seq, one.version, one.status, one.pool, one.capacity, one.current_jobs)
        == (other.seq, other.version, other.status, other.pool, other.capacity, other.current_jobs)
        and one.labels == other.labels
        and one._packed_state == other._packed_state
    )
