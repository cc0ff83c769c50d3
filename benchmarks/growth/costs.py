"""``Costs``: what the simulation stands on, in microseconds of CPU and in bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import attrs

__all__ = ["Costs", "Line", "fit"]


@attrs.frozen
class Line:
    """
    What a call costs by how much is in it.

    Attributes:
        a: Microseconds a call.
        b: Microseconds for each thing in it.
    """

    a: float
    b: float

    def at(self, count: float) -> float:
        """Return the microseconds of a call with *count* things in it."""
        return self.a + self.b * count

    @classmethod
    def through(cls, points: Mapping[float, float]) -> Self:
        """Return the line that misses the points by the least, relative to each."""
        return cls(*fit([((1.0, x), y) for x, y in points.items()]))


@attrs.frozen(kw_only=True)
class Costs:
    """
    What was measured. Lines are microseconds of CPU, of the server unless they say ``own``.

    Attributes:
        submit, claim, settle, renew: Calls by the number of tasks.
        nothing: A claim that finds nothing.
        wake: What a call costs more when the server was asleep; part of the above.
        expire: A kept reply, when its minute is over.
        hint: A wake-up by the number of who listens; from a script it costs only what they do.
        own_submit, own_claim, own_settle: The same calls in the client.
        own_handler: A handler that does nothing, with all that is around it.
        own_waiting: A handler that sleeps once.
        own_hint: A message in an idle worker that listens for wake-ups, without a claim.
        wire: From client to server, or back: microseconds in which neither computes.
        news, touch: Heartbeats with and without news, by the number of nodes in a call.
        to_feed_news, to_feed_touch: The same for every feed that listens.
        apply_news, apply_touch: A message in a feed by the nodes in it.
        list_server, list_feed: A node, when a feed reads the whole fleet.
        pulse: One of a feed, with its PING.
        idle_claims: Commands a second that an idle worker sends.
        idle_worker, idle_feed: Microseconds of server CPU a second for one of them.
        task_bytes, reply_bytes, node_bytes: In the server: a waiting task, a kept reply, a node.
        feed_bytes: A node in the process of a feed.
    """

    submit: Line
    claim: Line
    settle: Line
    renew: Line
    nothing: float
    wake: float
    expire: float
    hint: Line
    own_submit: Line
    own_claim: Line
    own_settle: Line
    own_handler: float
    own_waiting: float
    own_hint: float
    wire: float
    news: Line
    touch: Line
    to_feed_news: Line
    to_feed_touch: Line
    apply_news: Line
    apply_touch: Line
    list_server: float
    list_feed: float
    pulse: float
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
        """Return the costs that a run has kept among its settings."""
        kept: dict[str, Any] = json.loads(path.read_text())["settings"]["costs"]
        return cls(**{name: _read(value) for name, value in kept.items()})


def _read(value: Any) -> Any:
    return Line(value["a"], value["b"]) if hasattr(value, "keys") else value


def fit(points: Sequence[tuple[Sequence[float], float]]) -> list[float]:
    """
    Return the coefficients that make the least squares of relative errors.

    Args:
        points: Each the factors of the coefficients, and what their sum should be.

    None is negative: what would be is taken for nothing, and the rest fitted again.
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
    """Solve a few equations by elimination."""
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
