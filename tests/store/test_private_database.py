"""Databases that another user may have planted, or that contain code, are refused."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rxdispatch.errors import ConfigError
from rxdispatch.files.private_database import open_database
from tests.strangers import as_user, shared_folder


def made(path: Path, *statements: str) -> Path:
    """Make a database with mode 0600."""
    path.touch(0o600)
    with closing(sqlite3.connect(path)) as connection:
        for statement in ("CREATE TABLE t (x)", *statements):
            connection.execute(statement)
        connection.commit()
    return path


def test_a_new_one_is_the_owners_alone(tmp_path: Path) -> None:
    """The files that SQLite puts beside it are private too."""
    path = tmp_path / "db"
    before = os.umask(0)
    try:
        with closing(open_database(path, what="store")) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE t (x)")
            modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert {"db": 0o600, "db-wal": 0o600, "db-shm": 0o600} == modes


def test_an_old_one_is_opened_as_it_is(tmp_path: Path) -> None:
    """The data is kept, and the schema is not trusted."""
    path = made(tmp_path / "db", "INSERT INTO t VALUES (7)")
    with closing(open_database(path, what="store")) as connection:
        assert (0,) == connection.execute("PRAGMA trusted_schema").fetchone()
        assert [(7,)] == connection.execute("SELECT x FROM t").fetchall()


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("CREATE TRIGGER spy AFTER INSERT ON t BEGIN SELECT 1; END", "trigger 'spy'"),
        ("CREATE VIEW v AS SELECT 1", "view 'v'"),
        ("CREATE VIRTUAL TABLE f USING fts5(x)", "table 'f'"),
    ],
)
def test_what_runs_by_itself_is_refused(tmp_path: Path, statement: str, found: str) -> None:
    """Triggers, views and virtual tables are refused, as they may run code on every access."""
    path = made(tmp_path / "db", statement)
    rule = f"store must hold neither triggers nor views, but has the {found}"
    with pytest.raises(ConfigError, match=rule):
        open_database(path, what="store")


@pytest.mark.parametrize("beside", ["-wal", "-journal", "-shm"])
def test_a_planted_journal_is_refused(beside: str) -> None:
    """A planted journal is refused, as SQLite would replay it."""
    with shared_folder() as folder:
        path = made(folder / "db")
        assert 0 == as_user((folder / f"db{beside}").touch)
        with pytest.raises(ConfigError, match="the file beside the store must belong to"):
            open_database(path, what="store")


def test_a_planted_database_is_refused() -> None:
    """A database of another user is refused, whatever it contains."""
    with shared_folder() as folder:
        assert 0 == as_user(lambda: made(folder / "db"))
        with pytest.raises(ConfigError, match="store must belong to"):
            open_database(folder / "db", what="store")


@pytest.mark.parametrize("way", ["replaced", "removed before", "removed after"])
@pytest.mark.parametrize("times", [1, 100])
def test_one_that_is_exchanged_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, times: int
) -> None:
    """The opened file must be the checked one; if it was replaced, the new one is checked."""
    path = made(tmp_path / "db")
    turns = iter(range(times))
    opened: Callable[..., sqlite3.Connection] = sqlite3.connect

    def exchanged(name: str, **options: Any) -> sqlite3.Connection:
        if next(turns, None) is None:
            return opened(name, **options)
        if way == "removed before":
            path.unlink()
        connection = opened(name, **options)
        if way == "replaced":
            (tmp_path / "other").touch(0o600)
            (tmp_path / "other").replace(path)
        if way == "removed after":
            connection.execute("SELECT 1 FROM sqlite_master")
            path.unlink()
        return connection

    monkeypatch.setattr(sqlite3, "connect", exchanged)
    if times > 1:
        with pytest.raises(ConfigError, match="store must not be replaced while it is opened"):
            open_database(path, what="store")
    else:
        connection = open_database(path, what="store")
        assert path.samefile(connection.execute("PRAGMA database_list").fetchone()[2])
        connection.close()
        assert 0o600 == path.stat().st_mode & 0o777


def test_a_name_that_an_address_would_read_otherwise(tmp_path: Path) -> None:
    """URL characters, spaces and bytes that are no text are ordinary parts of a name."""
    for name in ("a?mode=memory", "b%20#c", "d e", os.fsdecode(b"\xff")):
        open_database(tmp_path / name, what="store").close()
        assert (tmp_path / name).is_file()


def test_only_where_there_is_one(tmp_path: Path) -> None:
    """Without *create*, no file is created."""
    with pytest.raises(FileNotFoundError):
        open_database(tmp_path / "db", what="store", create=False)
    assert [] == list(tmp_path.iterdir())
