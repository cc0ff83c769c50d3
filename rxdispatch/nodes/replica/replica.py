"""``Replica``: the fleet as this process knows it (L1), and the rules by which it changes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from typing import Final

from rxdispatch.node import ChangeKind, Node, NodeChange, NodeStatus
from rxdispatch.nodes.records import Message, NodeRow
from rxdispatch.nodes.replica.followers import Followers

__all__ = ["Replica"]

# Nodes that were registered together do not all become suspect in one moment: seconds, and at
# most this share of the ttl.
_SPREAD: Final = 0.04
_SHARE: Final = 0.05


class Replica:
    """
    Nodes by id, each as of some number in the order of all changes.

    INVARIANT. All changes up to ``high`` are in here. A node may be ahead of that, because it
    was looked up or written from here: then its own ``seq`` says so, or ``_gone`` where it is
    absent, and what the stream brings of it up to there is passed over. So whatever comes late,
    twice or in another order, a node only goes forward.

    Nothing in here waits; all of it runs on the loop.

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
        self._heard: dict[str, float] | None = None

    @property
    def epoch(self) -> bytes:
        """The life of the registry's data that is in here."""
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: bytes) -> None:
        self._epoch, self._epoch_text = epoch, epoch.hex()

    # -- what comes in -----------------------------------------------------------------------

    def follow(self, message: Message) -> bool:
        """
        Apply the next message of the stream.

        Returns:
            False if it leaves a gap, or parts of it could not be read: then nothing of what is
            missing may be taken for seen.
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
        Apply what was read from the registry, or written to it.

        Args:
            rows: Nodes as they were at the number *upto*.
            upto: That number.
            complete: Everything that changed between ``high`` and *upto* is in *rows*.
        """
        stale = upto < self.high
        for row in rows:
            if stale and (row.seq <= self.high) and row.id not in self.nodes:
                continue  # it was removed meanwhile, which we know and the reply does not
            if stale and row.node is None and not row.version:
                continue
            self._apply(row)
        if complete:
            self._seen(upto)

    def replace(self, epoch: bytes, rows: Iterable[NodeRow], upto: int) -> None:
        """Let the fleet be *rows*, all there are at the number *upto*; tell the differences."""
        before = dict(self.nodes)
        self.nodes.clear()
        # Numbers that went back are another life too, whatever its name.
        new_life = epoch != self.epoch or upto < self.high
        self.epoch = epoch
        self._gone = {} if new_life else {n: s for n, s in self._gone.items() if s > upto}
        self._lapse.clear()
        if self._heard is not None:
            self._heard.clear()
        self._next_lapse = math.inf
        self.high = 0
        told: list[NodeChange] = []
        for row in rows:
            node = row.node
            if node is None or row.seq <= self._gone.get(row.id, 0):
                continue
            old = before.pop(row.id, None)
            if old is not None and not new_life and old.seq > row.seq:
                node = old  # looked up a moment ago, and ahead
            if row.ttl > 0:
                self._live(row)
            else:
                self._hear(row)
                node = node.marked(NodeStatus.SUSPECT)
            self.nodes[row.id] = node
            if old is not None and not new_life and row.birth > old.seq:
                told.append(NodeChange("removed", old, old, self._epoch_text, row.birth - 1))
                old = None
            if old is None or (old is not node and not _alike(old, node)):
                kind: ChangeKind = "added" if old is None else "updated"
                told.append(NodeChange(kind, node, old, self._epoch_text, node.seq))
        for old in before.values():
            if not new_life and old.seq > upto:
                self.nodes[old.id] = old
            else:
                told.append(NodeChange("removed", old, old, self._epoch_text, upto))
        self.high = upto
        self._followers.replaced()
        for change in told:
            self._followers.publish(change)

    # -- time --------------------------------------------------------------------------------

    @property
    def due(self) -> bool:
        """Whether the ttl of a node may have run out here."""
        return self._clock() >= self._next_lapse

    def lapse(self) -> None:
        """Suspect the nodes whose ttl has run out here, and have them looked up."""
        now = self._clock()
        if now >= self._next_lapse:
            for node in [node for node, at in self._lapse.items() if at <= now]:
                # Subscribers are told, and may ask for the fleet from within.
                if self._lapse.pop(node, None) is not None:
                    self._suspect(node)
                    self._followers.doubt(node)
            self._next_lapse = min(self._lapse.values(), default=math.inf)
        if self._next_lapse < math.inf:
            self._followers.lapse_at(self._next_lapse)

    def suspect_all(self) -> None:
        """Suspect every node: nothing can be proven any more."""
        for node in tuple(self.nodes):
            self._suspect(node)

    def remaining(self, name: str) -> float:
        """Return the seconds until a node lapses; 0 where it has."""
        return max(0.0, self._lapse.get(name, 0.0) - self._clock())

    def suspects(self) -> list[str]:
        """Return the ids of the nodes that are suspect."""
        return [n.id for n in self.nodes.values() if n.status is NodeStatus.SUSPECT]

    def _suspect(self, name: str) -> None:
        old = self.nodes.get(name)
        if old is not None and old.status is not NodeStatus.SUSPECT:
            node = self.nodes[name] = old.marked(NodeStatus.SUSPECT)
            self._followers.changed(old, node)
            self._tell("suspect", node, old, node.seq)

    def _live(self, row: NodeRow) -> None:
        name, ttl = row.id, row.ttl
        self._hear(row)
        if ttl <= 0:
            # The registry knows that it has lapsed, and holds on to it for now.
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
        """Remember from now on when each node was last heard of; some 150 bytes a node."""
        if self._heard is None:
            self._heard = {}

    def _hear(self, row: NodeRow) -> None:
        if self._heard is not None:
            self._heard[row.id] = self._clock() - row.silence

    def silence(self, name: str) -> float | None:
        """Return the seconds since the last heartbeat of a node, None where that is not known."""
        heard = None if self._heard is None else self._heard.get(name)
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
                # It went and came again while nothing was heard: another life, whose slots and
                # versions are not those of the one before.
                self._tell("removed", old, old, row.birth - 1)
                old = None
            self._tell("added" if old is None else "updated", node, old, seq)
            self._live(row)
        elif version:
            self._touch(old, row)
        else:
            if seq > self.high:
                self._gone[name] = seq
            if old is not None:
                del self.nodes[name]
                self._lapse.pop(name, None)
                if self._heard is not None:
                    self._heard.pop(name, None)
                self._followers.changed(old, None)
                self._tell("removed", old, old, seq)

    def _touch(self, old: Node | None, row: NodeRow) -> None:
        """A heartbeat without news: nothing to tell, unless the node had been given up."""
        if old is None or old.version != row.version - 1:
            self._followers.doubt(row.id)
            return
        if old.status is NodeStatus.SUSPECT:
            # What it was before is not known here.
            self._followers.doubt(row.id)
        node = self.nodes[row.id] = old.renewed(row.version, row.seq)
        self._followers.changed(old, node)
        self._live(row)

    def _confirm(self, old: Node, row: NodeRow) -> None:
        """It was looked up and nothing has changed."""
        node = row.node
        assert node is not None
        if row.ttl > 0 and old.status is NodeStatus.SUSPECT:
            self.nodes[node.id] = node
            self._followers.changed(old, node)
            self._tell("updated", node, old, node.seq)
        self._live(row)

    def _seen(self, upto: int) -> None:
        if upto > self.high:
            self.high = upto
            if self._gone:
                self._gone = {name: seq for name, seq in self._gone.items() if seq > upto}

    def synced(self) -> None:
        """Tell the subscribers that what was missed has been made up for."""
        self._followers.publish(NodeChange("synced", None, None, self._epoch_text, self.high))

    def _tell(self, kind: ChangeKind, node: Node, previous: Node | None, seq: int) -> None:
        self._followers.publish(NodeChange(kind, node, previous, self._epoch_text, seq))


def _alike(one: Node, other: Node) -> bool:
    # Of another life the numbers may be the same and the rest not.
    return (
        (one.seq, one.version, one.status, one.pool, one.capacity, one.current_jobs)
        == (other.seq, other.version, other.status, other.pool, other.capacity, other.current_jobs)
        and one.labels == other.labels
        and one.packed_state == other.packed_state
    )
