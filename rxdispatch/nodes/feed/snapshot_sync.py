"""``SnapshotSync``: saves the replica to the snapshot on disk (L2), and loads it from there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from rxdispatch.nodes.feed.replica import Replica
from rxdispatch.nodes.feed.snapshot import Snapshot, Stored, StoredRow
from rxdispatch.nodes.records import MessageReader, NodeRow, pack_record

__all__ = ["SnapshotSync"]

_FULL: Final = 1000


class SnapshotSync:
    """
    Between one replica and the snapshot that the processes of this host share.

    One of them writes, the others read when they have to; which one is for the snapshot to say.

    Args:
        snapshot: Open.
        replica: What is written, and filled.
    """

    def __init__(self, snapshot: Snapshot, replica: Replica) -> None:
        self._snapshot = snapshot
        self._replica = replica
        self._reader = MessageReader()
        self._dirty: set[str] = set()
        self._epoch = b""
        self._saves = 0
        self._saving: asyncio.Task[None] | None = None

    def changed(self, node: str) -> None:
        """Have a node written, or its removal."""
        self._dirty.add(node)

    def replaced(self) -> None:
        """Have all of it written."""
        self._epoch = b""

    async def preload(self) -> None:
        """Begin with what is on disk, however old: what has changed since is fetched."""
        stored = await self._snapshot.load()
        if stored is not None:
            self._take(stored)

    async def refresh(self, away: float) -> float:
        """
        Take what another process has written since.

        Args:
            away: Seconds since the replica was proven; older data of another epoch is no news.

        Returns:
            Its age in seconds.
        """
        stored = await self._snapshot.since(self._replica.epoch.hex(), self._replica.high)
        if stored is None:
            return float("inf")
        same = stored.epoch == self._replica.epoch.hex()
        if stored.seq > self._replica.high if same else stored.age < away:
            self._take(stored)
        return stored.age

    def save(self) -> None:
        """Write what has changed, in the background, unless that is under way."""
        if self._saving is None:
            self._saving = asyncio.get_running_loop().create_task(self._save())

    async def close(self) -> None:
        """Finish writing."""
        if self._saving is not None:
            await asyncio.gather(self._saving, return_exceptions=True)
        await self._snapshot.close()

    async def _save(self) -> None:
        replica = self._replica
        try:
            if not await self._snapshot.lead():
                # Another process writes; should it end, all of it is to be written.
                self._epoch = b""
                self._dirty.clear()
                return
            # Now and then all of it: removals of long ago would pile up.
            self._saves += 1
            full = self._epoch != replica.epoch or self._saves % _FULL == 0
            dirty, self._dirty = self._dirty, set()
            # All of it without an await: the rows and the number belong together.
            rows = list(self._rows(tuple(replica.nodes) if full else dirty))
            epoch, high = replica.epoch, replica.high
            saved = await self._snapshot.save(epoch.hex(), high, rows, full=full)
            self._epoch = epoch if saved else b""
        finally:
            self._saving = None

    def _rows(self, ids: Iterable[str]) -> Iterable[StoredRow]:
        replica = self._replica
        for name in ids:
            node = replica.nodes.get(name)
            if node is None:
                yield StoredRow(name, replica.high, b"", 0.0)
            else:
                yield StoredRow(name, node.seq, pack_record(node), replica.remaining(name))

    def _take(self, stored: Stored) -> None:
        epoch = bytes.fromhex(stored.epoch)
        rows: list[NodeRow] = []
        for row in stored.rows:
            try:
                node = self._reader.record(row.id, row.seq, row.record) if row.record else None
            except ValueError:
                continue
            rows.append(NodeRow(row.id, row.seq, node, 0, row.remaining))
        if epoch == self._replica.epoch:
            self._replica.fill(rows, stored.seq, complete=True)
        else:
            self._replica.replace(epoch, rows, stored.seq)
