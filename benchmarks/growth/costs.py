"""``Costs``: the measured costs of calls for server and client; the input of all formulas."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import attrs

__all__ = ["CallCost", "Costs", "fit"]


@attrs.frozen
class CallCost:
    """
    The cost of a call as a straight line over the number of its items.

    Attributes:
        a: Microseconds per call.
        b: Microseconds per item.
    """

    a: float
    b: float

    def at(self, count: float) -> float:
        """Return the microseconds of a call with *count* items."""
        return self.a + self.b * count

    def each(self, count: float) -> float:
        """Return the microseconds per item, in calls with *count* items."""
        return self.a / count + self.b

    @classmethod
    def through(cls, points: Mapping[float, float]) -> Self:
        """Return the line with the least relative errors at the points."""
        return cls(*fit([((1.0, x), y) for x, y in points.items()]))


@attrs.frozen(kw_only=True)
class Costs:
    """
    The measured costs.

    Costs of calls are microseconds of CPU: of the client if the name begins with ``own``, else of
    the server.

    Attributes:
        submit, claim, settle, renew: Calls by the number of tasks.
        nothing: A claim that finds nothing.
        hint: A wake-up by the number of listeners; inside a script only ``b`` of it counts.
        own_claim, own_settle: The same calls in the client.
        own_handler: A handler that does nothing, with everything that ``execute`` does for it.
        own_waiting: The same for a handler that sleeps once.
        news, touch: Heartbeats with and without news, by the number of nodes in a call.
        to_feed_news, to_feed_touch: What each listening feed adds to the cost of a heartbeat.
        apply_news, apply_touch: A message in a feed, by the number of nodes in it.
        list_server, list_feed: One node, when a feed reads the whole fleet.
        idle_claims: Scripts a second that an idle worker calls.
        idle_worker, idle_feed: Microseconds of server CPU a second for an idle worker or feed.
        task_bytes, reply_bytes, node_bytes: In the server: a waiting task, a kept reply, a node.
        feed_bytes: A node in the process of a feed.
    """

    submit: CallCost
    claim: CallCost
    settle: CallCost
    renew: CallCost
    nothing: float
    hint: CallCost
    own_claim: CallCost
    own_settle: CallCost
    own_handler: float
    own_waiting: float
    news: CallCost
    touch: CallCost
    to_feed_news: CallCost
    to_feed_touch: CallCost
    apply_news: CallCost
    apply_touch: CallCost
    list_server: float
    list_feed: float
    idle_claims: float
    idle_worker: float
    idle_feed: float
    task_bytes: float
    reply_bytes: float
    node_bytes: float
    feed_bytes: float

    def as_dict(self) -> dict[str, Any]:
        """Return what :meth:`load` reads."""
        return attrs.asdict(self)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the costs that a run has saved in its settings."""
        saved: dict[str, Any] = json.loads(path.read_text())["settings"]["costs"]
        return cls(**{name: _read(value) for name, value in saved.items()})


def _read(value: Any) -> Any:
    return CallCost(value["a"], value["b"]) if hasattr(value, "keys") else value


def fit(points: Sequence[tuple[Sequence[float], float]]) -> list[float]:
    """
    Return the coefficients with the least squares of relative errors.

    Args:
        points: For each measurement, the factors of the coefficients, and the measured value.

    No coefficient is negative: if one would be, it becomes zero and the others are fitted again.
    """
    width = len(points[0][0])
    used = list(range(width))
    while True:
        found = _solve(
            [[sum(f[i] * f[j] / y**2 for f, y in points) for j in used] for i in used],
            [sum(f[i] / y for f, y in points) for i in used],
        )
        if min(found) >= 0 or len(used) == 1:
            break
        del used[found.index(min(found))]
    result = [0.0] * width
    for i, value in zip(used, found, strict=True):
        result[i] = value
    return result


def _solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Solve a few linear equations by elimination."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    size = len(rows)
    for i in range(size):
        pivot = max(range(i, size), key=lambda r: abs(rows[r][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        for r in range(size):
            if r != i:
                factor = rows[r][i] / rows[i][i]
                rows[r] = [x - factor * y for x, y in zip(rows[r], rows[i], strict=True)]
    return [row[-1] / row[i] for i, row in enumerate(rows)]
