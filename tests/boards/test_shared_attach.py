"""Handles on a board in shared memory: create, attach, inherit, close, unlink, refuse."""

from __future__ import annotations

import asyncio
import functools
import itertools
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from rxdispatch.boards.shm.board import SharedMemoryBoard
from rxdispatch.boards.shm.storage import layout
from rxdispatch.boards.shm.storage.mapping import path_of
from rxdispatch.errors import BoardFullError, ConfigError
from rxdispatch.task import Task
from tests.strangers import STRANGER, as_user

_names = itertools.count()

Board = SharedMemoryBoard[Any]


@pytest.fixture
def name() -> Iterator[str]:
    """Return a name, and unlink its board afterwards."""
    made = f"attach-{os.getpid()}-{next(_names)}"
    yield made
    path_of(made).unlink(missing_ok=True)


async def take(board: Board, limit: int = 10) -> list[Any]:
    """Claim and settle tasks; return the payloads."""
    claims = await board.claim(limit)
    assert all(await board.settle([claim.done() for claim in claims]))
    return [claim.task.payload for claim in claims]


def take_elsewhere(name: str, out: Any) -> None:
    """Take the tasks that another process submitted."""
    with Board.attach(name) as board:
        out.put(asyncio.run(take(board)))


def taken(name: str) -> list[int]:
    """Take all tasks in a process that shares nothing else; return its output."""
    code = (
        "import asyncio, sys\nfrom tests.boards.test_shared_attach import Board, take\n"
        "with Board.attach(sys.argv[1]) as board: print(*asyncio.run(take(board)))"
    )
    done = subprocess.run([sys.executable, "-c", code, name], capture_output=True, check=True)
    return [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_open_it_by_name(name: str, method: str) -> None:
    """One process submits, another claims and settles, and the first sees the counts."""
    context: Any = multiprocessing.get_context(method)
    with Board.create(name, capacity=100) as board:
        asyncio.run(board.submit(Task(n) for n in range(3)))
        out = context.Queue()
        process = context.Process(target=take_elsewhere, args=(name, out))
        process.start()
        assert [0, 1, 2] == out.get(timeout=60)
        process.join()
        assert 0 == process.exitcode
        assert 3 == asyncio.run(board.counts()).done


def in_child(work: Any) -> int:
    """Run *work* in a forked child; return its wait status."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if work() else 3)
        except BaseException:
            os._exit(4)
    return os.waitpid(pid, 0)[1]


def test_a_child_may_use_what_it_inherits(name: str) -> None:
    """The child takes a seat of its own, and its end does not disturb the parent."""
    with Board.create(name, capacity=100) as board:
        asyncio.run(board.submit(Task(n) for n in range(4)))
        seat = board._shared.mapping.seat

        def work() -> bool:
            got = asyncio.run(take(board, 2))
            return got == [0, 1] and board._shared.mapping.seat != seat

        assert 0 == in_child(work)

        def die() -> bool:
            asyncio.run(take(board, 1))
            os.kill(os.getpid(), signal.SIGKILL)
            return False

        assert signal.SIGKILL == os.WTERMSIG(in_child(die))
        assert seat == board._shared.mapping.seat
        assert [3] == asyncio.run(take(board))
        counts = asyncio.run(board.counts())
        assert (0, 4) == (counts.ready, counts.done)


def test_it_outlives_its_maker(name: str) -> None:
    """A board exists until it is unlinked, even while no process has it open."""
    with Board.create(name, capacity=100) as board:
        asyncio.run(board.submit(Task(7)))
    assert [7] == taken(name)
    with Board.attach(name) as board:
        board.unlink()
    with pytest.raises(ConfigError, match="name must be that of a board"):
        Board.attach(name)


def test_unlinked_while_it_is_open(name: str) -> None:
    """Open handles keep working, and the name is free for another board."""
    with Board.create(name, capacity=100) as old, Board.attach(name) as second:
        old.unlink()
        old.unlink()
        with Board.create(name, capacity=100) as new:
            asyncio.run(old.submit(Task("old")))
            asyncio.run(new.submit(Task("new")))
            assert ["old"] == asyncio.run(take(second))
            assert ["new"] == asyncio.run(take(new))


def test_a_name_that_is_in_use(name: str) -> None:
    """The name is refused, and the existing board is unchanged."""
    with Board.create(name, capacity=100) as board:
        asyncio.run(board.submit(Task(1)))
        with pytest.raises(ConfigError, match="name must not be in use by another board, got "):
            Board.create(name, capacity=100)
        # There may be drafts of other boards in the same folder.
        assert [path_of(name)] == [*path_of(name).parent.glob(f"{path_of(name).name}*")]
        assert [1] == asyncio.run(take(board))


def test_a_closed_handle(name: str) -> None:
    """A handle may be closed twice; other calls say that it is closed."""
    board = Board.create(name, capacity=100)
    board.close()
    board.close()
    with pytest.raises(ConfigError, match="board must be open, got "):
        asyncio.run(board.submit(Task(1)))


@pytest.mark.parametrize("capacity", [0, -1, 1.5, True, "9", 1 << 24, None])
def test_a_bad_capacity(name: str, capacity: Any) -> None:
    """A bad capacity is refused before a file is made."""
    with pytest.raises(ConfigError, match="capacity must be an int from 1 to 8388608, got "):
        Board.create(name, capacity=capacity)
    assert not path_of(name).exists()


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"remember": 1e6}, "remember must be at most 259200 s in shared memory"),
        ({"payload": object()}, "payload must be a type that msgspec can decode"),
        ({"max_crashes": -1}, "max_crashes must be an int >= 0"),
    ],
)
def test_bad_options(name: str, options: dict[str, Any], rule: str) -> None:
    """Refused options leave no board and no handle behind."""
    with pytest.raises(ConfigError, match=rule):
        Board.create(name, capacity=100, **options)
    assert not path_of(name).exists()
    with Board.create(name, capacity=100, max_crashes=2) as board:
        for _ in range(layout.SEATS + 10):
            with pytest.raises(ConfigError):
                Board.attach(name, **options)
        with pytest.raises(ConfigError, match="max_crashes must be 2, as stored with the board"):
            Board.attach(name, max_crashes=3)
        assert 1 == len(asyncio.run(board.submit(Task(1))).accepted)


@pytest.mark.parametrize("bad", ["", "x" * 201, "\ud800", "a\nb", "a}", 5, None])
def test_a_bad_name(bad: Any) -> None:
    """The error states the rule for names."""
    for way in (Board.create, Board.attach):
        with pytest.raises(ConfigError, match="name must "):
            way(bad)


def patched(name: str, offset: int, value: int) -> None:
    """Write a word into the file of a board."""
    with path_of(name).open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack("<Q", value))


@pytest.mark.parametrize(
    ("offset", "value", "rule"),
    [
        (layout.AT_MAGIC, 5, "must have been made by rxdispatch"),
        (layout.AT_VERSION, layout.VERSION - 1, f"must be of version {layout.VERSION}, got 1"),
        (layout.AT_VERSION, 0, f"must be of version {layout.VERSION}, got 0"),
        (layout.AT_SIZE, 4096, "must have [0-9]+ bytes"),
        (layout.AT_CELLS, 101, "must have [0-9]+ bytes"),
    ],
)
def test_a_file_of_another_making(name: str, offset: int, value: int, rule: str) -> None:
    """A file with another header is refused, and stays unchanged."""
    Board.create(name, capacity=100).close()
    patched(name, offset, value)
    before = path_of(name).read_bytes()
    with pytest.raises(ConfigError, match=rule):
        Board.attach(name)
    assert before == path_of(name).read_bytes()


@pytest.mark.parametrize("content", [b"", b"x", os.urandom(8192)])
def test_a_file_that_is_no_board(name: str, content: bytes) -> None:
    """A file without a board is refused, whatever it contains."""
    path_of(name).touch(0o600)
    path_of(name).write_bytes(content)
    with pytest.raises(ConfigError, match="the file of a board must have been made by rxdispatch"):
        Board.attach(name)


@pytest.mark.parametrize("mode", [0o660, 0o640, 0o604])
def test_a_file_that_others_can_use(name: str, mode: int) -> None:
    """Other users could read tasks, write some, or truncate the file and so end the process."""
    Board.create(name, capacity=100).close()
    path_of(name).chmod(mode)
    with pytest.raises(ConfigError, match=r"must be (read|writ)able by its owner only"):
        Board.attach(name)


def test_a_planted_file(name: str) -> None:
    """Another user can make a file of that name; create and attach name this user."""
    assert 0 == as_user(functools.partial(plant, path_of(name)))
    try:
        for way in (Board.attach, Board.create):
            with pytest.raises(ConfigError, match=rf"must belong to .*, not to uid {STRANGER}"):
                way(name)
        assert b"forged" == path_of(name).read_bytes()
    finally:
        assert 0 == as_user(path_of(name).unlink)


def plant(path: Path) -> None:
    """Write a file that all can open, so that the victim could map it."""
    path.write_bytes(b"forged")
    path.chmod(0o666)


def test_a_planted_link(name: str, tmp_path: Path) -> None:
    """A symbolic link could lead anywhere, and a hard link to a board of another name."""
    path_of(name).symlink_to(tmp_path / "target")
    for way in (Board.attach, Board.create):
        with pytest.raises(ConfigError, match="the file of a board must not be a symbolic link"):
            way(name)
    path_of(name).unlink()
    other = f"{name}-other"
    with Board.create(other, capacity=100) as board:
        os.link(path_of(other), path_of(name))
        board.unlink()
        with pytest.raises(ConfigError, match="must be that of the board's own name"):
            Board.attach(name)


def test_a_child_of_a_board_without_a_name(name: str) -> None:
    """The child opens its parent's file, and not the file of a new board with the same name."""
    with Board.create(name, capacity=100) as board:
        asyncio.run(board.submit(Task(n) for n in range(3)))
        board.unlink()
        with Board.create(name, capacity=100) as other:
            asyncio.run(other.submit([Task("other")]))
            assert 0 == in_child(lambda: asyncio.run(take(board, 2)) == [0, 1])
            assert [2] == asyncio.run(take(board))
            assert ["other"] == asyncio.run(take(other))


def test_a_child_leaves_alone_what_was_closed(name: str) -> None:
    """The child does not touch the descriptor of a closed handle, which may have been reused."""
    with Board.create(name, capacity=100):
        # The error keeps the failed handle alive.
        with pytest.raises(ConfigError) as caught:
            Board.attach(name, payload=cast("Any", object()))
        with path_of(name).open("rb") as file:
            assert 0 == in_child(lambda: os.fstat(file.fileno()).st_size > 0)
        assert caught.value.__traceback__ is not None


def test_a_child_where_there_is_no_proc(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without /proc, the child opens the file by name, if it is still the same one."""
    real = os.open

    def without(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).startswith("/proc/"):
            raise FileNotFoundError(path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", without)
    with Board.create(name, capacity=100) as board:
        asyncio.run(board.submit(Task(n) for n in range(2)))
        assert 0 == in_child(lambda: asyncio.run(take(board, 1)) == [0])
        board.unlink()
        with Board.create(name, capacity=100):

            def refused() -> bool:
                with pytest.raises(ConfigError, match="must be the one that the parent has open"):
                    asyncio.run(take(board, 1))
                return True

            assert 0 == in_child(refused)


def test_a_file_that_was_cut_short(name: str) -> None:
    """If it were mapped, the first access behind its end would end the process."""
    Board.create(name, capacity=100).close()
    os.truncate(path_of(name), 10_000)
    with pytest.raises(ConfigError, match=r"the file of a board must have [0-9]+ bytes, got 10000"):
        Board.attach(name)


async def test_a_full_board(name: str) -> None:
    """A chunk that does not fit is refused as a whole; earlier chunks stay, and room comes back."""
    with Board.create(name, capacity=1500) as board:
        with pytest.raises(BoardFullError) as caught:
            await board.submit(Task(n, id=f"{n}") for n in range(2200))
        assert tuple(str(n) for n in range(1000)) == caught.value.accepted
        assert "500 are free" in str(caught.value)
        assert 1000 == (await board.counts()).ready
        assert 500 == len((await board.submit(Task(n) for n in range(500))).accepted)
        with pytest.raises(BoardFullError):
            await board.submit(Task(1))
        assert list(range(600)) == await take(board, 600)
        assert 600 == len((await board.submit(Task(n) for n in range(600))).accepted)
        # A full board still has room for what its tasks need when they fail.
        claims = await board.claim(1500)
        assert all(await board.settle([claim.retry("e" * 900) for claim in claims]))
        assert 1500 == (await board.counts()).ready


async def test_large_tasks(name: str) -> None:
    """Ids and payloads of many cells come back unchanged, and their cells are freed."""
    with Board.create(name, capacity=20_000) as board:
        for size in (1, 80, 81, 300, 5000, 1024 * 1024 - 100):
            for task_id in ("a", "b" * 500, "\udcff" * 90):
                payload = os.urandom(size)
                await board.submit(Task(payload, id=task_id))
                (claim,) = await board.claim(1)
                assert (task_id, payload) == (claim.task.id, claim.task.payload)
                assert [True] == await board.settle(claim.done())


def test_without_the_extra() -> None:
    """The error names the missing extra."""
    code = (
        "import sys\nsys.modules['atomicshm'] = None\n"
        "from rxdispatch import ConfigError, SharedMemoryBoard\n"
        "for way in (SharedMemoryBoard.create, SharedMemoryBoard.attach):\n"
        "    try: way('x')\n    except ConfigError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [
        "boards in shared memory need the extra rxdispatch[shm]"
    ] * 2 == done.stdout.splitlines()


def test_more_handles_than_seats(name: str) -> None:
    """The error states the rule, and closing a handle frees its seat."""
    with Board.create(name, capacity=100):
        boards = [Board.attach(name) for _ in range(layout.SEATS - 1)]
        with pytest.raises(ConfigError, match="a board must have at most 256 handles at a time"):
            Board.attach(name)
        open_files = len([*Path("/proc/self/fd").iterdir()])
        with pytest.raises(ConfigError, match="a board must have at most 256 handles at a time"):
            Board.attach(name)
        assert open_files == len([*Path("/proc/self/fd").iterdir()])
        boards.pop().close()
        boards.append(Board.attach(name))
        for board in boards:
            board.close()
