"""``EnqueueTimes``: maps sequence numbers to enqueue times in constant memory."""

from __future__ import annotations

from bisect import bisect_right

__all__ = ["EnqueueTimes"]

_MOST = 64
_GAP = 1.0


class EnqueueTimes:
    """
    Up to 64 samples of a number and the time at which it was given out, at most one per second.

    To make room for a new sample, this drops the one whose neighbours are closest together in
    relation to their age, so that the error of an age stays a fraction of that age. The scripts of
    a ``RedisBoard`` do the same.
    """

    __slots__ = ("_due", "_numbers", "_times")

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._times: list[float] = []
        self._due = float("-inf")

    def note(self, number: int, now: float) -> None:
        """Record that *number* is given out *now*, unless the last sample is under a second old."""
        if now < self._due:
            return
        self._due = now + _GAP
        if len(self._numbers) >= _MOST:
            times = self._times
            drop = min(
                range(1, _MOST - 1),
                key=lambda i: (times[i + 1] - times[i - 1]) / (now - times[i + 1] + _GAP),
            )
            del self._numbers[drop], times[drop]
        self._numbers.append(number)
        self._times.append(now)

    def given(self, number: int) -> float:
        """Return when *number* was given out; too early by up to a second or a part of its age."""
        return self._times[max(0, bisect_right(self._numbers, number) - 1)]
