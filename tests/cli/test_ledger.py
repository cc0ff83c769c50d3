"""The ledger that keeps the counts of the demo."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rxdispatch.cli.demo.ledger import FileCounts, Ledger
from rxdispatch.errors import ConfigError


def test_same_task_twice_is_one_row(tmp_path: Path) -> None:
    """Two connections write it like two workers; boards are separate, and names may be bytes."""
    path = tmp_path / "l.sqlite3"
    with Ledger(path, create=True) as one, Ledger(path) as other:
        one.put("b", "a\udcff.py", FileCounts(1, 2, 3))
        other.put("b", "a\udcff.py", FileCounts(4, 5, 6))
        other.put("c", "a.py", FileCounts(7, 8, 9))
        assert {"a\udcff.py": FileCounts(4, 5, 6)} == one.counts("b")
        identity = one.identity
    with Ledger(path, create=True) as again:
        assert identity == again.identity
        assert 1 == len(again.counts("c"))


def test_another_file_is_refused(tmp_path: Path) -> None:
    """The error says that the file is not a database."""
    path = tmp_path / "l.sqlite3"
    path.write_text("something else, and long enough to be read as the head of a database" * 9)
    with pytest.raises(ConfigError, match="the ledger must be a database"):
        Ledger(path, create=True)


def test_it_is_the_owners_alone(tmp_path: Path) -> None:
    """The file is private whatever the umask is, and a link in its place is refused."""
    path = tmp_path / "l.sqlite3"
    before = os.umask(0)
    try:
        Ledger(path, create=True).close()
    finally:
        os.umask(before)
    assert 0o600 == path.stat().st_mode & 0o777
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(ConfigError, match="the ledger must not be a symbolic link"):
        Ledger(tmp_path / "link")
