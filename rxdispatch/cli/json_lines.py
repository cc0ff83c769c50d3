"""``JsonLines``: writes JSON lines into a pipe at the pace of its reader."""

from __future__ import annotations

import asyncio
import json
import os
import select
from collections.abc import Iterable
from typing import Any, Final, cast

__all__ = ["JsonLines", "as_json"]

# According to select(2), a writable pipe takes at least this many bytes without blocking.
_PIECE: Final = select.PIPE_BUF


class JsonLines:
    """
    A writer of JSON lines that does not block the loop, so that feeds and signals go on.

    Args:
        descriptor: The descriptor of a file or pipe. Its flags stay as they are, because other
            processes may share it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def write(self, documents: Iterable[dict[str, Any]]) -> None:
        """
        Write each document as one line.

        Raises:
            BrokenPipeError: If the pipe has no reader any more.
        """
        left = memoryview("".join(f"{as_json(document)}\n" for document in documents).encode())
        while left:
            await self._writable()
            left = left[os.write(self._descriptor, left[:_PIECE]) :]

    async def _writable(self) -> None:
        # Files on disk, for which the loop cannot wait, are always writable.
        if select.select((), (self._descriptor,), (), 0)[1]:
            return
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        loop.add_writer(self._descriptor, _done, ready)
        try:
            await ready
        finally:
            loop.remove_writer(self._descriptor)


def as_json(document: dict[str, Any], *, indent: int | None = None) -> str:
    """Return *document* in ASCII; values without a JSON form become text."""
    try:
        return json.dumps(document, indent=indent, default=str)
    except TypeError:
        # MessagePack allows keys of any type.
        return json.dumps(_text_keys(document), indent=indent, default=str)


def _text_keys(value: object) -> object:
    if isinstance(value, dict):
        pairs = cast("dict[object, object]", value)
        return {k if isinstance(k, str) else str(k): _text_keys(v) for k, v in pairs.items()}
    if isinstance(value, (list, tuple)):
        return [_text_keys(item) for item in cast("Iterable[object]", value)]
    return value


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
