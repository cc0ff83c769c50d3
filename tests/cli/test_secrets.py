"""The commands print no password, no payload and no header."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final

import pytest
import structlog
from click.testing import CliRunner, Result

import rxdispatch as rxd
from rxdispatch.cli.commands import rxdispatch
from rxdispatch.cli.exits import without_secrets
from tests.cli.test_worker import Worker
from tests.servers import valkey_server

Run = Callable[..., Result]

PASSWORD: Final = "SECRET-password"
URL: Final = f"redis://worker:{PASSWORD}@127.0.0.1:1/0"

HANDLERS: Final = """
import rxdispatch as rxd

async def fail(task):
    local = "SECRET-local"
    if task.payload == "leave":
        raise SystemExit(3)
    raise ValueError("no way")

def in_thread(task, *, argument="SECRET-argument"):
    local = task.payload + local_of(argument)

def local_of(argument):
    raise LookupError("nor this way")

async def enrich(item):
    local = "SECRET-local"
    raise ValueError("no way")

async def store(item):
    pass

shop = rxd.Pipeline(rxd.stage(store, name="begin"), rxd.stage(enrich, board="jobs"))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with handlers that fail."""
    (tmp_path / "handlers.py").write_text(HANDLERS)
    return tmp_path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Generator[Run]:
    """Yield a function that runs the command within this process, which is quicker."""
    before = structlog.get_config()
    monkeypatch.delenv("RXDISPATCH_URL", raising=False)
    yield lambda *arguments, **variables: CliRunner(env=variables).invoke(rxdispatch, arguments)
    structlog.configure(**before)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("worker", "a:b", "--shm", "b", "--url", URL), 2, "--shm must be given without --url\n"),
        (("worker", "a:b", "--board", URL), 2, "worker must have a server: "),
        (("worker", "a:b", "--board", f"{{{URL}", "--url", URL), 2, "board must have no braces"),
        (("worker", "a:b", "--board", "b", "--url", f"{URL}@x"), 2, "must be percent-encoded"),
        (("worker", "a:b", "--board", "b", "--url", "redis", URL), 2, "unexpected extra argument"),
        (("worker", URL, "--board", "b", "--url", URL), 2, "handler must be given as module:name"),
        (("worker", "os:nothing", "--board", "b", "--url", URL), 2, "handler must be in module os"),
        (("top", "b", "--url", URL, "--once"), 1, "the server must be reachable"),
        (("top", "b", "--url", URL, "--interval", URL), 2, "is not a valid float"),
        (("top", f"{URL}{'x' * 300}{{", "--url", URL), 2, "board must be a str of 1 to 200"),
        (("top", f"redis://{'x' * 150}{PASSWORD}{'x' * 150}@h", "--url", URL), 2, "board must be"),
        (("nodes", "watch", "--url", URL, "--once"), 1, "the server must be reachable"),
        (("nodes", "watch", URL), 2, "unexpected extra argument"),
        (("nodes", "watch", "--url", f"http{URL}"), 2, "url must begin with one of"),
        (("nodes", "simulate", "--url", URL, "--duration", "1"), 1, "the server must be reachable"),
        (("nodes", URL), 2, "No such command"),
        (("demo", "--board", "shm", "--url", URL), 2, "without --url and --data-dir"),
        (("demo", URL), 2, "PATH must exist"),
        (("demo", "--url", URL, "--workers", "1", __file__), 1, "the server must be reachable"),
        (("demo", f"--url{URL}"), 2, "No such option"),
        ((URL,), 2, "No such command"),
    ],
)
def test_a_refusal_names_no_password(
    command: Run, arguments: tuple[str, ...], code: int, message: str
) -> None:
    """No message shows the password of a URL, even if the URL is in the wrong argument."""
    done = command(*arguments)
    assert code == done.exit_code, done.output
    assert message in done.output
    assert "SECRET" not in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("start", [("top", "b", "--once"), ("nodes", "watch", "--once")])
def test_nor_does_one_from_the_environment(command: Run, start: tuple[str, ...]) -> None:
    """No message shows the password of ``RXDISPATCH_URL`` either."""
    done = command(*start, RXDISPATCH_URL=URL)
    assert 1 == done.exit_code
    assert "redis://worker:***@127.0.0.1:1/0" in done.output
    assert "SECRET" not in done.output


async def test_the_worker_prints_nothing_of_a_task(folder: Path) -> None:
    """Failures show tracebacks, but no payload, header, local variable or password."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        await hub.client.call("set", "CONFIG", "SET", "requirepass", PASSWORD)
        url = server.target.safe.replace("//", f"//:{PASSWORD}@", 1)
        board = hub.board("jobs")
        for name in ("fail", "in_thread"):
            payloads = ("SECRET-payload", "leave") if name == "fail" else ("SECRET-payload",)
            await board.submit(
                rxd.Task(payload, headers={"key": "SECRET-header"}, max_attempts=1)
                for payload in payloads
            )
            with Worker(
                *(folder, f"handlers:{name}", "--board", "jobs", "--url", url, "-v"),
                *("--max-tasks", len(payloads)),
                fails=True,
            ) as worker:
                err = await worker.over()
            assert 0 == worker.process.returncode, err
            assert len(payloads) == err.count("Traceback")
            assert "SECRET" not in err
        letters = [letter async for letter in board.dead_letters()]
        assert 3 == len(letters)
        assert "SECRET" not in "".join(f"{letter.error}{letter.traceback}" for letter in letters)


async def test_a_stage_prints_nothing_of_an_item(folder: Path) -> None:
    """Failures of a stage show tracebacks, but no item, header, local variable or password."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:

        async def begin(item: Any) -> Any:
            return item

        async with rxd.Pipeline(
            rxd.stage(begin), rxd.stage(begin, name="enrich", board="jobs"), boards=hub.board
        ) as pipeline:
            await pipeline.feed(["SECRET-payload"])
        with Worker(
            *(folder, "handlers:shop", "--stage", "enrich", "--url", server.target.safe, "-v"),
            fails=True,
        ) as worker:
            worker.read_until("ValueError: no way")
            worker.process.send_signal(signal.SIGTERM)
            _, err = worker.end()
        assert 0 == worker.process.returncode
        assert "SECRET" not in err


def test_a_url_from_a_file(command: Run, tmp_path: Path) -> None:
    """``@FILE`` means the contents of FILE, with or without a newline at the end."""
    for text in (URL, f"\n{URL}\n"):
        (tmp_path / "url").write_text(text)
        done = command("top", "b", "--once", "--url", f"@{tmp_path / 'url'}")
        assert 1 == done.exit_code
        assert "redis://worker:***@127.0.0.1:1/0" in done.output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "the file must be readable, got '{path}' (No such file or directory)"),
        (b"\xff\x00", "the file must be readable, got '{path}' (it is not text)"),
        (b" \n", "the file must hold one URL and nothing else, got '{path}'"),
        (b"URL=SECRET-1\nSECRET-2", "the file must hold one URL and nothing else, got '{path}'"),
        (b"SECRET-1", "url must begin with one of"),
    ],
)
def test_a_file_without_a_url(
    command: Run, tmp_path: Path, content: bytes | None, message: str
) -> None:
    """The file is refused, and its contents are not printed."""
    if content is not None:
        (tmp_path / "url").write_bytes(content)
    done = command("worker", "os:abort", "--board", "b", "--url", f"@{tmp_path / 'url'}")
    assert 2 == done.exit_code
    assert message.format(path=tmp_path / "url") in re.sub(r"\s+", " ", done.output)
    assert "SECRET" not in done.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("at redis://me:***@h:1/0: refused", "at redis://me:***@h:1/0: refused"),
        ("got 'redis://h:6379/0'", "got 'redis://h:6379/0'"),
        ("got 'redis://me:a@b/c@h'", "got 'redis://***@h'"),
        ("got 'rediss:/me:a@h'", "got 'rediss:/***@h'"),
        ("got 'redis://me:abc... (900 characters)", "got 'redis://***@ (900 characters)"),
        ("mail me@example.org", "mail me@example.org"),
        ("a\x1b[2Jb\nc", "a\\x1b[2Jb\\nc"),
    ],
)
def test_sayable(text: str, said: str) -> None:
    """Logins in URLs and terminal control characters are removed; the rest stays."""
    assert said == without_secrets(text)


def test_every_help_warns(command: Run) -> None:
    """The help of each ``--url`` has the warning."""
    for name in (("worker",), ("top",), ("demo",), ("nodes", "watch"), ("nodes", "simulate")):
        words = re.sub(r"\s+", " ", command(*name, "--help", COLUMNS="200").stdout)
        assert "Other users of this machine can read this option" in words, name
        assert "@FILE" in words
