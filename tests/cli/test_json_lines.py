"""JSON lines that are written to pipes."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from rxdispatch.cli.json_lines import JsonLines, as_json


def test_everything_becomes_ascii_json() -> None:
    """Values without a JSON form, such as bytes and other keys than text, become text."""
    document: dict[str, Any] = {"n": "\x1b[2J\u2028\x85", "b": b"\xff", "m": {(1, 2): [{b"k": 1}]}}
    text = as_json(document)
    assert text.isascii()
    assert text.isprintable()
    assert {"n": document["n"], "b": "b'\\xff'", "m": {"(1, 2)": [{"b'k'": 1}]}} == json.loads(text)


async def test_a_full_pipe_does_not_stop_the_loop() -> None:
    """The loop goes on while the pipe is full, and later the reader gets everything."""
    reading, writing = os.pipe()
    documents = [{"n": n, "text": "x" * 100} for n in range(5000)]
    try:
        writer = asyncio.create_task(JsonLines(writing).write(documents))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not writer.done()
        assert os.get_blocking(writing)
        found = b""
        while found.count(b"\n") < len(documents):
            found += await asyncio.to_thread(os.read, reading, 1 << 16)
        await writer
        assert documents == [json.loads(line) for line in found.splitlines()]
    finally:
        os.close(reading)
        os.close(writing)


async def test_cancelled_while_it_waits() -> None:
    """A cancellation while the pipe is full leaves nothing registered with the loop."""
    reading, writing = os.pipe()
    try:
        writer = asyncio.create_task(JsonLines(writing).write([{"text": "x" * (1 << 20)}]))
        for _ in range(50):
            await asyncio.sleep(0)
        writer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writer
        assert not asyncio.get_running_loop().remove_writer(writing)
    finally:
        os.close(reading)
        os.close(writing)


async def test_nobody_reads_any_more(tmp_path: Path) -> None:
    """A pipe without a reader raises an error; a file can always be written."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with pytest.raises(BrokenPipeError):
            await JsonLines(writing).write([{}])
    finally:
        os.close(writing)
    with (tmp_path / "out").open("wb") as file:
        await JsonLines(file.fileno()).write([{"a": 1}, {"a": 2}])
    assert '{"a": 1}\n{"a": 2}\n' == (tmp_path / "out").read_text()
