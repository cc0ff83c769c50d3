"""
The operators of rxdispatch, for ``Observable.pipe``.

Boards: ``submit``, ``claim``, ``claim_each``, ``execute``, ``settle``, ``dead_letter``.
Nodes: ``assign``.
Work: ``map_async``, ``map_blocking``, ``batch``. Back-pressure: ``buffer_bounded``, ``conflate``,
``prioritize``, ``broadcast``. Time: ``rate_limit``, ``delay_until``, ``timeout_idle``,
``deadline``, ``retry_backoff``. Observation: ``measure``, ``checkpoint``.
"""

from rxdispatch.operators.flow._batch import batch
from rxdispatch.operators.flow._broadcast import broadcast
from rxdispatch.operators.flow._buffer_bounded import buffer_bounded
from rxdispatch.operators.flow._checkpoint import checkpoint
from rxdispatch.operators.flow._conflate import conflate
from rxdispatch.operators.flow._deadline import deadline
from rxdispatch.operators.flow._delay_until import delay_until
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.operators.flow._map_blocking import map_blocking
from rxdispatch.operators.flow._measure import measure
from rxdispatch.operators.flow._prioritize import prioritize
from rxdispatch.operators.flow._rate_limit import rate_limit
from rxdispatch.operators.flow._retry_backoff import retry_backoff
from rxdispatch.operators.flow._timeout_idle import timeout_idle
from rxdispatch.operators.tasks._assign import assign
from rxdispatch.operators.tasks._claim import claim
from rxdispatch.operators.tasks._claim_each import claim_each
from rxdispatch.operators.tasks._dead_letter import dead_letter
from rxdispatch.operators.tasks._execute import execute
from rxdispatch.operators.tasks._settle import settle
from rxdispatch.operators.tasks._submit import submit

__all__ = [
    "assign",
    "batch",
    "broadcast",
    "buffer_bounded",
    "checkpoint",
    "claim",
    "claim_each",
    "conflate",
    "dead_letter",
    "deadline",
    "delay_until",
    "execute",
    "map_async",
    "map_blocking",
    "measure",
    "prioritize",
    "rate_limit",
    "retry_backoff",
    "settle",
    "submit",
    "timeout_idle",
]
