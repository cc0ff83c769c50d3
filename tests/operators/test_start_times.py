"""The file in which processes record when a call began."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from rxdispatch.errors import ConfigError
from rxdispatch.operators._start_times import StartTimes, record_start


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    """The target of the link is not written."""
    target = tmp_path / "precious"
    target.write_bytes(b"as it was")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(ConfigError, match="the file of start times must not be a symbolic link"):
        record_start((str(tmp_path / "link"), 0, 1))
    assert b"as it was" == target.read_bytes()


def test_it_is_made_where_nobody_else_exchanges_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that others can write to is skipped."""
    tmp_path.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    starts = StartTimes()
    try:
        mark = starts.new_key()
        record_start(mark)
        assert Path("/tmp") == Path(mark[0]).parent
        assert 0o600 == Path(mark[0]).stat().st_mode & 0o777
        assert starts.age(mark) is not None
    finally:
        starts.close()
    assert [] == list(tmp_path.iterdir())
