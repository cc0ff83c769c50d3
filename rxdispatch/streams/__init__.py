"""Sources, queues and sinks of streams."""

from __future__ import annotations

from rxdispatch.streams._from_async_iterable import from_async_iterable
from rxdispatch.streams._from_iterable import from_iterable
from rxdispatch.streams._ingress import Ingress
from rxdispatch.streams._kill_switch import KillSwitch
from rxdispatch.streams._run import run
from rxdispatch.streams._to_async_iterable import to_async_iterable

__all__ = [
    "Ingress",
    "KillSwitch",
    "from_async_iterable",
    "from_iterable",
    "run",
    "to_async_iterable",
]
