"""
The operators of rxdispatch, to be used in ``Observable.pipe``.

Around boards: ``submit``, ``claim``, ``claim_each``, ``execute``, ``settle``, ``dead_letter``.
On any stream: ``map_async``, ``map_blocking``, ``batch``, ``retry_backoff``, ``timeout_idle``,
``deadline``.
"""

from rxdispatch.operators.tasks._claim import claim
from rxdispatch.operators.tasks._claim_each import claim_each
from rxdispatch.operators.tasks._dead_letter import dead_letter
from rxdispatch.operators.tasks._execute import execute
from rxdispatch.operators.tasks._settle import settle
from rxdispatch.operators.tasks._submit import submit

__all__ = ["claim", "claim_each", "dead_letter", "execute", "settle", "submit"]
