"""The demo from its first line to its exit code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import redis

from rxdispatch.store.url import parse_url
from tests.cli.command import expected, part, run
from tests.servers import system_redis


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a tree of valid files, and one of each kind that is not."""
    root = tmp_path / "tree"
    (root / "sub" / "deeper").mkdir(parents=True)
    for i in range(12):
        source = f"class A{i}:\n    async def f(self):\n        def g(): pass\n" * (i + 1)
        (root / "sub" / f"good{i}.py").write_text(source)
    (root / "sub" / "deeper" / "blocks.py").write_text(
        "try:\n    def a(): pass\nexcept E:\n    class B: pass\nelse:\n    def c(): pass\n"
        "finally:\n    match x:\n        case 1:\n            def d(): return lambda: 0\n"
    )
    (root / "empty.py").write_bytes(b"")
    (root / "latin.py").write_bytes(b"# coding: latin-1\r\ns = '\xe9'\r")
    (root / "warns.py").write_text("pattern = '\\d'\n")
    (root / "syntax.py").write_text("def broken(:\n    pass\n")
    (root / "bytes.py").write_bytes(b"s = '\xff\xfe'\n")
    (root / "null.py").write_bytes(b"a = 1\0\n")
    (root / "nowhere.py").symlink_to(root / "missing")
    (root / "notes.txt").write_text("no Python")
    # Reading this pipe would never end.
    os.mkfifo(root / "pipe.py")
    return root


def test_numbers_are_those_of_a_direct_count(tree: Path, tmp_path: Path) -> None:
    """The numbers equal a direct count; after a complete run, the result is shown again."""
    wanted = expected(tree)
    home = tmp_path / "data"
    first = run(tree, "--json", "--workers", 2, "--data-dir", home)
    assert 0 == first.returncode, first.stderr
    assert wanted == part(first.stdout, wanted)
    document: dict[str, Any] = json.loads(first.stdout)
    # Each of these had three attempts.
    assert 2 * wanted["dead"] == document["run"]["retries"]
    assert {3} == {letter["attempts"] for letter in document["dead_letters"]}
    assert wanted["files"] == document["run"]["files"]
    assert 0 == document["run"]["files_before"]
    assert "sub/good11.py" == document["largest"][0]["id"]

    again = run(tree, "--json", "--workers", 1, "--data-dir", home)
    assert 0 == again.returncode, again.stderr
    assert wanted == part(again.stdout, wanted)
    assert 0 == json.loads(again.stdout)["run"]["files"]
    assert "Nothing was left to do" in again.stderr

    # Another path has its own numbers; it may also be a single file of any name.
    other = run(tree / "notes.txt", "--json", "--workers", 1, "--data-dir", home)
    assert 0 == other.returncode, other.stderr
    assert {"notes.txt": "SyntaxError"} == {
        letter["id"]: letter["error"].partition(":")[0]
        for letter in json.loads(other.stdout)["dead_letters"]
    }


def test_a_board_in_shared_memory(tree: Path) -> None:
    """The numbers are the same without a server."""
    done = run(tree, "--json", "--workers", 2, "--board", "shm")
    assert 0 == done.returncode, done.stderr
    wanted = expected(tree)
    assert wanted == part(done.stdout, wanted)
    assert "the board is in shared memory." in done.stderr


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """File names of any bytes are dispatched, and escaped in the text output."""
    root = tmp_path / "tree"
    root.mkdir()
    strange = os.fsencode(root) + b"/odd\xff\x1b[2J.py"
    try:
        Path(os.fsdecode(strange)).write_text("a = 1\nb = 2\n")
    except OSError:
        pytest.skip("file names must be text on this system")
    (root / "bad.py").write_text("(")
    done = run(root, "--workers", 1)
    assert 0 == done.returncode, done.stderr
    assert r"odd\udcff\x1b[2J.py" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    for line in ("Done: 2 files in", "SyntaxError", "bad.py", "Largest modules"):
        assert line in done.stdout
    assert "2/2 files" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read all files")
def test_files_that_may_not_be_read(tmp_path: Path) -> None:
    """Unreadable files become dead letters, and unreadable folders are named."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.py").write_text("a = 1\n")
    (tmp_path / "b.py").write_text("a = 1\n")
    (tmp_path / "b.py").chmod(0)
    (tmp_path / "sub").chmod(0)
    try:
        done = run(tmp_path, "--json", "--workers", 1)
    finally:
        (tmp_path / "sub").chmod(0o700)
    document = json.loads(done.stdout)
    assert {"PermissionError": 1} == document["dead_by_reason"]
    assert [str(tmp_path / "sub")] == document["unread_folders"]


def test_leaves_nothing_on_a_server_of_others(tree: Path) -> None:
    """Without a data directory no later run can resume the board, so the demo clears it."""
    wanted = expected(tree)
    with system_redis() as url:
        done = run(tree, "--json", "--workers", 1, "--url", url)
        assert wanted == part(done.stdout, wanted), done.stderr
        client: Any = redis.Redis(port=parse_url(url).port, decode_responses=True)
        with client:
            keys: list[str] = client.keys()
    # The options of the board stay, and for a minute the replies to the last requests.
    assert {key.split(":")[2] for key in keys} <= {"meta", "session"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("{tmp}/nope",), 2, "PATH must exist, got '{tmp}/nope'"),
        (("{tmp}",), 2, "PATH must hold at least one .py file, got '{tmp}'"),
        (("--workers", "0"), 2, "workers must be from 1 to 256, got 0"),
        (("--url", "redis://me:geheim@x@h/"), 2, "must be percent-encoded (@ is %40)"),
        (
            ("--board", "shm", "--data-dir", "{tmp}"),
            2,
            "--board shm must be given without --url and --data-dir, got '--data-dir'",
        ),
        (
            ("--url", "redis://:geheim@127.0.0.1:1/0"),
            1,
            "connect to redis://:***@127.0.0.1:1/0: the server must be reachable (",
        ),
    ],
)
def test_trouble_is_one_sentence(
    tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    """The exit code is 2 for a user's error and 1 for an unreachable server; no traceback."""
    done = run(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert code == done.returncode
    assert message.format(tmp=tmp_path) in done.stderr
    assert "Traceback" not in done.stderr
    assert "geheim" not in done.stderr + done.stdout
    assert "" == done.stdout


def test_a_folder_that_others_can_write(tree: Path, tmp_path: Path) -> None:
    """The folder is refused before anything is written into it."""
    home = tmp_path / "open"
    home.mkdir()
    home.chmod(0o777)
    done = run(tree, "--data-dir", home)
    assert 2 == done.returncode
    assert "data_dir must be writable by its owner only" in done.stderr
    assert [] == list(home.iterdir())
