"""
The operators of rxdispatch, to be used in ``Observable.pipe``.

Around boards: ``submit``, ``claim``, ``claim_each``, ``execute``, ``settle``, ``dead_letter``.
On any stream: ``map_async``, ``map_blocking``, ``batch``, ``retry_backoff``, ``timeout_idle``,
``deadline``.
"""

from rxdispatch.operators.flow._batch import batch
from rxdispatch.operators.flow._deadline import deadline
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.operators.flow._map_blocking import map_blocking
from rxdispatch.operators.flow._retry_backoff import retry_backoff
from rxdispatch.operators.flow._timeout_idle import timeout_idle
from rxdispatch.operators.tasks._claim import claim
from rxdispatch.operators.tasks._claim_each import claim_each
from rxdispatch.operators.tasks._dead_letter import dead_letter
from rxdispatch.operators.tasks._execute import execute
from rxdispatch.operators.tasks._settle import settle
from rxdispatch.operators.tasks._submit import submit

__all__ = [
    "batch",
    "claim",
    "claim_each",
    "dead_letter",
    "deadline",
    "execute",
    "map_async",
    "map_blocking",
    "retry_backoff",
    "settle",
    "submit",
    "timeout_idle",
]
