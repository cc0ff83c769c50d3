"""Private directories: short, closed to others, swept when their owner is gone."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from rxdispatch.store.private import PrivateDirectory


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of its own for temporary files, short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_it_is_private_and_short(parent: Path) -> None:
    """Mode 0700, and a socket in it has an address that fits."""
    private = PrivateDirectory.create()
    assert parent == private.path.parent
    assert stat.S_IMODE(private.path.stat().st_mode) == 0o700
    assert len(os.fsencode(private.path / "server.sock")) < 104
    private.remove()
    assert [] == list(parent.iterdir())


def test_a_deep_place_is_not_used(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket's address would not fit."""
    deep = parent / ("x" * 90)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    private = PrivateDirectory.create()
    assert Path("/tmp") == private.path.parent
    private.remove()


def test_stale_ones_are_swept(parent: Path) -> None:
    """Those whose lock is free; those in use, of others and half made ones stay."""
    stale, used = PrivateDirectory.create(), PrivateDirectory.create()
    (stale.path / "server.sock").touch()
    stale.lock.close()
    fresh, old = parent / "rxd-fresh", parent / "rxd-old"
    fresh.mkdir()
    old.mkdir()
    os.utime(old, (0, 0))
    other, target = parent / "unrelated", parent / "target"
    other.mkdir()
    target.mkdir()
    (parent / "rxd-link").symlink_to(target)
    private = PrivateDirectory.create()
    left = {path.name for path in parent.iterdir()}
    expected = {used.path.name, private.path.name, "rxd-fresh", "unrelated", "target", "rxd-link"}
    assert expected == left
    used.remove()
    private.remove()
