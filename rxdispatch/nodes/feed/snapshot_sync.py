"""``SnapshotSync``: saves the replica to the snapshot on disk (L2), and loads it from there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from rxdispatch.node import NodeStatus
from rxdispatch.nodes.feed.snapshot import Snapshot, Stored, StoredRow
from rxdispatch.nodes.records import MessageReader, NodeRow, pack_record
from rxdispatch.nodes.replica.replica import Replica
from rxdispatch.nodes.replica.unsaved import Unsaved

__all__ = ["SnapshotSync"]

_FULL: Final = 1000


class SnapshotSync:
    """
    Moves nodes between one replica and the snapshot that the processes of this host share.

    The process that holds the snapshot's lock writes; the others read during an outage.

    Args:
        snapshot: The file.
        replica: The replica that is saved and loaded.
        unsaved: The nodes that have changed since the last save.
    """

    def __init__(self, snapshot: Snapshot, replica: Replica, unsaved: Unsaved) -> None:
        self._snapshot = snapshot
        self._replica = replica
        self._reader = MessageReader()
        self._unsaved = unsaved
        self._saves = 0
        self._saving: asyncio.Task[None] | None = None

    async def preload(self) -> None:
        """Load the file, however old it is; the sync task then fetches the changes since."""
        stored = await self._snapshot.load()
        if stored is not None:
            self._take(stored)

    async def refresh(self, away: float) -> float:
        """
        Load what another process has saved since the last proof.

        Args:
            away: Seconds since the last proof; data of another epoch that is older is ignored.

        Returns:
            The age of the snapshot in seconds; infinite if there is none.
        """
        stored = await self._snapshot.since(self._replica.epoch.hex(), self._replica.high)
        if stored is None:
            return float("inf")
        same = stored.epoch == self._replica.epoch.hex()
        if stored.seq > self._replica.high if same else stored.age < away:
            self._take(stored)
        return stored.age

    def save(self) -> None:
        """Save the changes in the background, unless a save is running."""
        if self._saving is None:
            self._saving = asyncio.get_running_loop().create_task(self._save())

    async def close(self) -> None:
        """Finish the running save, and close the file."""
        if self._saving is not None:
            await asyncio.gather(self._saving, return_exceptions=True)
        await self._snapshot.close()

    async def _save(self) -> None:
        replica = self._replica
        try:
            if not await self._snapshot.lead():
                # Another process writes. If this one takes over, it writes the whole fleet first.
                self._unsaved.add_all()
                return
            ids = self._unsaved.take()
            # The whole fleet is saved now and then, or rows of removed nodes would pile up.
            self._saves += 1
            full = ids is None or self._saves % _FULL == 0
            # No await until the number is read: the rows and the number belong together.
            rows = list(self._rows(tuple(replica.nodes) if full or ids is None else ids))
            epoch, high = replica.epoch, replica.high
            if not await self._snapshot.save(epoch.hex(), high, rows, full=full):
                self._unsaved.add_all()
        finally:
            self._saving = None

    def _rows(self, ids: Iterable[str]) -> Iterable[StoredRow]:
        replica = self._replica
        for name in ids:
            node = replica.nodes.get(name)
            if node is None:
                yield StoredRow(name, replica.high, b"", 0.0)
            else:
                # A record cannot say suspect; a row that has lapsed is suspect when it is loaded.
                suspect = node.status is NodeStatus.SUSPECT
                remaining = 0.0 if suspect else replica.remaining(name)
                yield StoredRow(name, node.seq, pack_record(node), remaining)

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
