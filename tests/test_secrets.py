"""No secret appears in the output of a program or the command, whatever the logging setup."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.servers import system_redis

ROOT: Final = Path(__file__).parents[1]
LIMIT: Final = 60.0

SECRET: Final = "s3cr3t-4111"

HANDLERS: Final = """
import asyncio
import rxdispatch as rxd

def charge(card, key):
    token = key.swapcase()
    raise ValueError("the bank said no")

async def fail(task):
    card, header = task.payload["card"], task.headers["auth"]
    await asyncio.sleep(0)
    charge(card, key=header)

def plain(task):
    local = dict(task.payload)
    charge(local, key=task.headers["auth"])

async def hang(task):
    card = task.payload["card"]
    await asyncio.sleep(60)

async def stage(item):
    card = item["card"]
    charge(card, key=card)
"""

PROGRAM: Final = """
import asyncio, os, sys
SETUP
import reactivex
from reactivex import operators as rx
import rxdispatch as rxd
from rxdispatch import operators as ops
import handlers

async def main():
    secret = os.environ["SECRET"]
    payload, headers = {"card": secret}, {"auth": secret}
    async with rxd.connect(os.environ["URL"], settings=rxd.Settings(grace=0)) as hub:
        for handler in (handlers.fail, handlers.plain, handlers.hang):
            board = hub.board(handler.__name__)
            limit = 0.2 if handler is handlers.hang else None
            await board.submit(rxd.Task(payload, headers=headers, max_attempts=1, timeout=limit))
            claims = board.claims(until="joined")
            await rxd.run(claims.pipe(ops.execute(handler), ops.settle(board)))
        board = hub.board("dropped")
        await board.submit(rxd.Task(payload, headers=headers))
        dropped = board.claims(until="idle").pipe(ops.execute(int), rx.filter(lambda _: False))
        await rxd.run(dropped.pipe(ops.settle(board)))
        board = hub.board("judged")
        await board.submit(rxd.Task(payload, headers=headers))
        try:
            await rxd.run(board.claims().pipe(ops.settle(board)))
        except rxd.ConfigError as error:
            print(error, file=sys.stderr)
        items = reactivex.of(payload, payload)
        await rxd.run(items.pipe(ops.map_async(handlers.stage, on_error="skip")))
        async with rxd.Pipeline(rxd.stage(handlers.stage), boards=hub.board) as pipeline:
            await pipeline.feed([payload])
    try:
        async with rxd.connect(f"redis://:{secret}@127.0.0.1:1") as hub:
            pass
    except rxd.RxDispatchError as error:
        print(error, file=sys.stderr)

asyncio.run(main())
"""

SETUPS: Final = {
    "nothing": "import rich",
    "structlog": "import rich, structlog; structlog.configure()",
    "json": (
        "import structlog; structlog.configure(processors=[structlog.processors.dict_tracebacks,"
        " structlog.processors.JSONRenderer()])"
    ),
    "logging": "import logging; logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)",
}


def spoken(folder: Path, url: str, *command: str) -> str:
    """Return all that *command* prints."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(folder))),
            "SECRET": SECRET,
            "URL": url,
            "RXDISPATCH_URL": url,
        },
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("setup", SETUPS)
def test_a_program_that_fails_prints_no_secret(tmp_path: Path, setup: str) -> None:
    """The output has the failures, but no argument, local, payload, header or password."""
    (tmp_path / "handlers.py").write_text(HANDLERS)
    (tmp_path / "program.py").write_text(PROGRAM.replace("SETUP", SETUPS[setup]))
    said = spoken(tmp_path, "memory://", "program.py")
    assert 4 <= said.count("attempt_failed"), said
    for word in (
        "the bank said no",
        "outcomes_dropped",
        "item_skipped",
        "item_failed",
        "in charge",
    ):
        assert word in said, (word, said)
    assert SECRET not in said, said
    assert SECRET.swapcase() not in said, said


@pytest.mark.parametrize("handler", ["fail", "plain", "hang"])
def test_the_command_prints_no_secret(tmp_path: Path, handler: str) -> None:
    """The output does not contain the password of the server either."""
    (tmp_path / "handlers.py").write_text(HANDLERS)
    submit = (
        "import asyncio, os, rxdispatch as rxd\n"
        "async def main():\n"
        "    async with rxd.connect(os.environ['URL']) as hub:\n"
        "        secret = os.environ['SECRET']\n"
        "        await hub.board('jobs').submit(rxd.Task({'card': secret},"
        " headers={'auth': secret}, timeout=1.0))\n"
        "asyncio.run(main())\n"
    )
    with system_redis(password=SECRET) as url:
        assert SECRET in url
        spoken(tmp_path, url, "-c", submit)
        command = ("-m", "rxdispatch.cli", "worker", f"handlers:{handler}", "--board", "jobs")
        said = spoken(tmp_path, url, *command, "--max-tasks", "1", "-v")
    assert "attempt_failed" in said
    assert "1 retried" in said
    assert SECRET not in said, said
    assert SECRET.swapcase() not in said, said
