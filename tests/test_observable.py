"""Wrong use of a ``Stream`` raises an error that says what to do instead."""

from __future__ import annotations

from typing import Any

import pytest
import reactivex
from reactivex import Observable

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.relay import Relay

STREAMS: dict[str, Observable[Any]] = {
    "claims": rxd.MemoryBoard("a").claims(until="idle"),
    "events": rxd.MemoryBoard("a").events,
    "relay": Relay[int]("r").observable,
    "ingress": rxd.Ingress[int](1),
    "from_iterable": rxd.from_iterable([1]),
    "operator": reactivex.of(1).pipe(ops.batch(1, 1.0)),
    "broadcast": reactivex.of(1).pipe(ops.broadcast(1)),
    "executed": rxd.MemoryBoard("a").claims().pipe(ops.execute(lambda task: task)),
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
async def test_async_for_names_what_to_use(stream: Any) -> None:
    """For every stream of this package, the error names what to use instead."""
    with pytest.raises(TypeError, match=r"to_async_iterable\(stream\)"):
        async for _ in stream:
            pass


def test_a_stream_is_no_async_iterable() -> None:
    """A stream as an iterable is refused when the outer stream is made, not when it is read."""
    given: Any = rxd.Ingress[int](1)
    with pytest.raises(rxd.ConfigError, match="iterable must be an async iterable"):
        rxd.from_async_iterable(given)
