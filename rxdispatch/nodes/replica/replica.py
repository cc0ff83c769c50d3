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
    The nodes by id, each as of some number in the order of all changes.

    INVARIANT. The replica contains all changes up to ``high``. A node that was looked up or
    written by this process may be ahead: then its own ``seq`` says how far, or ``_gone`` if it was
    removed, and older changes of it are ignored. So a node only goes forward, even if changes
    arrive late, twice or out of order.

    Nothing here waits; all of it runs on the loop.

    Args:
        nodes: Where the nodes are kept, by id; written by the replica alone.
        clock: Seconds that only grow.
        followers: What is updated with every change.
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
        self._gone: dict[str, int] = {}
        self._lapse: dict[str, float] = {}
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
            False if there is a gap before it, or a part of it could not be parsed: then ``high``
            stays, and the missing changes must be fetched.
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

    def fill(self, rows: Iterable[NodeRow], upto: int, *, complete: bool = False) -> None:
        """
        Apply nodes that were read from the registry or written to it.

        Args:
            rows: The nodes as they were at the number *upto*.
            upto: That number.
            complete: Whether *rows* has every change between ``high`` and *upto*.
        """
        stale = upto < self.high
        for row in rows:
            if stale and (row.seq <= self.high) and row.id not in self.nodes:
                continue  # removed meanwhile, which the replica knows and the reply does not
            if stale and row.node is None and not row.version:
                continue
            self._apply(row)
        if complete:
            self._seen(upto)

    def replace(self, epoch: bytes, rows: Iterable[NodeRow], upto: int) -> None:
        """Replace the fleet with *rows*, all nodes at *upto*, and publish the differences."""
        before = dict(self.nodes)
        self.nodes.clear()
        # Numbers that went back are a new life of the data too, even under the same epoch.
        new_life = epoch != self.epoch or upto < self.high
        self.epoch = epoch
        self._gone = {} if new_life else {n: s for n, s in self._gone.items() if s > upto}
        self._lapse.clear()
        if self._heartbeats is not None:
            self._heartbeats.clear()
        self._next_lapse = math.inf
        self.high = 0
        changes: list[NodeChange] = []
        for row in rows:
            node = row.node
            if node is None or row.seq <= self._gone.get(row.id, 0):
                continue
            old = before.pop(row.id, None)
            if old is not None and not new_life and old.seq > row.seq:
                node = old  # looked up a moment ago, and newer
            if row.ttl > 0:
                self._extend(row)
            else:
                self._note_heartbeat(row)
                node = node.marked(NodeStatus.SUSPECT)
            self.nodes[row.id] = node
            if old is not None and not new_life and row.birth > old.seq:
                changes.append(NodeChange("removed", old, old, self._epoch_text, row.birth - 1))
                old = None
            if old is None or (old is not node and not _alike(old, node)):
                kind: ChangeKind = "added" if old is None else "updated"
                changes.append(NodeChange(kind, node, old, self._epoch_text, node.seq))
        for old in before.values():
            if not new_life and old.seq > upto:
                self.nodes[old.id] = old
            else:
                changes.append(NodeChange("removed", old, old, self._epoch_text, upto))
        self.high = upto
        self._followers.replaced()
        for change in changes:
            self._followers.publish(change)

    # -- time --------------------------------------------------------------------------------

    @property
    def due(self) -> bool:
        """Whether the ttl of a node may have run out."""
        return self._clock() >= self._next_lapse

    def lapse(self) -> None:
        """Suspect the nodes whose ttl has run out, and have them looked up."""
        now = self._clock()
        if now >= self._next_lapse:
            for node in [node for node, at in self._lapse.items() if at <= now]:
                # A subscriber may call back into the feed, and get here again.
                if self._lapse.pop(node, None) is not None:
                    self._suspect(node)
                    self._followers.doubt(node)
            self._next_lapse = min(self._lapse.values(), default=math.inf)
        if self._next_lapse < math.inf:
            self._followers.lapse_at(self._next_lapse)

    def suspect_all(self) -> None:
        """Suspect every node, because nothing can be proven any more."""
        for node in tuple(self.nodes):
            self._suspect(node)

    def remaining(self, name: str) -> float:
        """Return the seconds until a node lapses; 0 once it has."""
        return max(0.0, self._lapse.get(name, 0.0) - self._clock())

    def suspects(self) -> list[str]:
        """Return the ids of the suspect nodes."""
        return [n.id for n in self.nodes.values() if n.status is NodeStatus.SUSPECT]

    def _suspect(self, name: str) -> None:
        old = self.nodes.get(name)
        if old is not None and old.status is not NodeStatus.SUSPECT:
            node = self.nodes[name] = old.marked(NodeStatus.SUSPECT)
            self._followers.changed(old, node)
            self._publish("suspect", node, old, node.seq)

    def _extend(self, row: NodeRow) -> None:
        name, ttl = row.id, row.ttl
        self._note_heartbeat(row)
        if ttl <= 0:
            # The registry knows that the node has lapsed, and keeps it for now.
            self._lapse.pop(name, None)
            self._suspect(name)
            return
        at = self._clock() + ttl + min(_SPREAD, _SHARE * ttl) * random.random()
        self._lapse[name] = at
        if at < self._next_lapse:
            self._next_lapse = at
            self._followers.lapse_at(at)

    # -- heartbeats --------------------------------------------------------------------------

    def keep_heartbeats(self) -> None:
        """Remember the time of each node's last heartbeat from now on; about 150 bytes a node."""
        if self._heartbeats is None:
            self._heartbeats = {}

    def _note_heartbeat(self, row: NodeRow) -> None:
        if self._heartbeats is not None:
            self._heartbeats[row.id] = self._clock() - row.silence

    def silence(self, name: str) -> float | None:
        """Return the seconds since the last heartbeat of a node; None where it is unknown."""
        heard = None if self._heartbeats is None else self._heartbeats.get(name)
        return None if heard is None else max(0.0, self._clock() - heard)

    # -- rows --------------------------------------------------------------------------------

    def _apply(self, row: NodeRow) -> None:
        name, seq, node, version = row.id, row.seq, row.node, row.version
        old = self.nodes.get(name)
        if old is not None:
            if seq <= old.seq:
                if seq == old.seq and node is not None:
                    self._confirm(old, row)
                return
        elif self._gone and seq <= self._gone.get(name, 0):
            return
        if node is not None:
            self.nodes[name] = node
            if self._gone:
                self._gone.pop(name, None)
            self._followers.changed(old, node)
            if old is not None and row.birth > old.seq:
                # It was removed and registered again during a gap: a new life, with slots and
                # versions of its own.
                self._publish("removed", old, old, row.birth - 1)
                old = None
            self._publish("added" if old is None else "updated", node, old, seq)
            self._extend(row)
        elif version:
            self._touch(old, row)
        else:
            if seq > self.high:
                self._gone[name] = seq
            if old is not None:
                del self.nodes[name]
                self._lapse.pop(name, None)
                if self._heartbeats is not None:
                    self._heartbeats.pop(name, None)
                self._followers.changed(old, None)
                self._publish("removed", old, old, seq)

    def _touch(self, old: Node | None, row: NodeRow) -> None:
        """Apply a heartbeat without news: nothing to publish, unless the node was suspect."""
        if old is None or old.version != row.version - 1:
            self._followers.doubt(row.id)
            return
        if old.status is NodeStatus.SUSPECT:
            # Its status from before is not known here.
            self._followers.doubt(row.id)
        node = self.nodes[row.id] = old.renewed(row.version, row.seq)
        self._followers.changed(old, node)
        self._extend(row)

    def _confirm(self, old: Node, row: NodeRow) -> None:
        """Apply a look-up that found no change: a suspect node is alive again."""
        node = row.node
        assert node is not None
        if row.ttl > 0 and old.status is NodeStatus.SUSPECT:
            self.nodes[node.id] = node
            self._followers.changed(old, node)
            self._publish("updated", node, old, node.seq)
        self._extend(row)

    def _seen(self, upto: int) -> None:
        if upto > self.high:
            self.high = upto
            if self._gone:
                self._gone = {name: seq for name, seq in self._gone.items() if seq > upto}

    def synced(self) -> None:
        """Tell the subscribers that the replica has caught up."""
        self._followers.publish(NodeChange("synced", None, None, self._epoch_text, self.high))

    def _publish(self, kind: ChangeKind, node: Node, previous: Node | None, seq: int) -> None:
        self._followers.publish(NodeChange(kind, node, previous, self._epoch_text, seq))


def _alike(one: Node, other: Node) -> bool:
    # In another life of the data the numbers may be equal and the rest not.
    return (
        (one.seq, one.version, one.status, one.pool, one.capacity, one.current_jobs)
        == (other.seq, other.version, other.status, other.pool, other.capacity, other.current_jobs)
        and one.labels == other.labels
        and one.packed_state == other.packed_state
    )
