"""``Unsaved`` forgets no change between two saves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from rxdispatch.node import Node
from rxdispatch.nodes.feed.snapshot import Snapshot, StoredRow
from rxdispatch.nodes.feed.snapshot_sync import SnapshotSync
from rxdispatch.nodes.records import NodeRow
from rxdispatch.nodes.replica.replica import Replica
from rxdispatch.nodes.replica.unsaved import Unsaved
from tests.nodes.replicas import FIRST, Watcher


class Gated(Snapshot):
    """A snapshot that records its saves and delays them until the test continues."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "test")
        self.saved: list[tuple[list[str], bool]] = []
        self.saving = asyncio.Event()
        self.go = asyncio.Event()

    async def save(self, epoch: str, seq: int, rows: Sequence[StoredRow], *, full: bool) -> bool:
        """Record the save, wait, then save."""
        self.saved.append(([row.id for row in rows], full))
        self.saving.set()
        await self.go.wait()
        return await super().save(epoch, seq, rows, full=full)


def test_all_at_first() -> None:
    """First the whole fleet is unsaved, then the nodes that were added since the last call."""
    unsaved = Unsaved()
    unsaved.add("a")
    assert unsaved.take() is None
    assert set() == unsaved.take()
    unsaved.add("b")
    unsaved.add("b")
    assert {"b"} == unsaved.take()
    unsaved.add("c")
    unsaved.add_all()
    assert unsaved.take() is None
    assert set() == unsaved.take()


async def test_a_relist_during_a_save(tmp_path: Path) -> None:
    """The next save writes the whole fleet again, or removed nodes would stay in the file."""
    unsaved, watcher, snapshot = Unsaved(), Watcher(), Gated(tmp_path / "fleet.db")
    replica = Replica({}, lambda: 0.0, watcher)
    watcher.replica = replica
    await snapshot.open()
    sync = SnapshotSync(snapshot, replica, unsaved)
    try:
        replica.replace(FIRST, [_row("a", 1), _row("b", 2)], 2)
        sync.save()
        await snapshot.saving.wait()
        replica.replace(FIRST, [_row("b", 2)], 3)
        unsaved.add_all()
        snapshot.saving.clear()
        snapshot.go.set()
        while not snapshot.saving.is_set():
            sync.save()
            await asyncio.sleep(0)
        assert [(["a", "b"], True), (["b"], True)] == snapshot.saved
    finally:
        await sync.close()


def _row(name: str, seq: int) -> NodeRow:
    return NodeRow(name, seq, Node(name, seq=seq), 0, 30.0)
