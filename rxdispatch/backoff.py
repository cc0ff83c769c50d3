"""``Backoff``: the waits between attempts."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import attrs

from rxdispatch.checks import integer, is_finite
from rxdispatch.errors import ConfigError
from rxdispatch.seconds import seconds

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["Backoff"]


def _first(value: float | timedelta) -> float:
    return seconds("first", value)


def _maximum(value: float | timedelta) -> float:
    return seconds("maximum", value)


def _factor(value: Any) -> float:
    if not is_finite(value) or value < 1:
        raise ConfigError("factor must be a finite number >= 1", value)
    # As a float, so that a huge power overflows at once instead of becoming a huge int.
    return float(value)


def _at_least_one(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None:
        integer(attribute.name, value, instead=" or None")


def _random(_: Any, __: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not isinstance(value, random.Random):
        raise ConfigError("rng must be a random.Random or None", value)


@attrs.frozen(slots=True)
class Backoff:
    """
    Exponential waits between attempts, with jitter.

    Args:
        first: Seconds before the second attempt.
        factor: The ratio of each wait to the one before, at least 1.
        maximum: The longest wait in seconds, jitter included.
        attempts: Attempts in a row, including the first; None for no limit.
        jitter: The fraction of a wait, from 0 to 1, by which it varies up and down. A wait at the
            maximum varies only down.
        rng: The source of the jitter; the ``random`` module by default.

    Raises:
        ConfigError: If an argument breaks its rule.

    Example:
        >>> backoff = Backoff(first=1.0, maximum=10.0, jitter=0.0)
        >>> [backoff.delay(n) for n in (1, 2, 3, 4, 5)]
        [1.0, 2.0, 4.0, 8.0, 10.0]
    """

    first: float = attrs.field(default=2.0, converter=_first)
    factor: float = attrs.field(default=2.0, converter=_factor)
    maximum: float = attrs.field(default=32.0, converter=_maximum)
    attempts: int | None = attrs.field(default=5, validator=_at_least_one)
    jitter: float = attrs.field(default=0.1)
    rng: random.Random | None = attrs.field(default=None, eq=False, repr=False, validator=_random)

    def __attrs_post_init__(self) -> None:
        if self.maximum < self.first:
            raise ConfigError(f"maximum must be >= first ({self.first:g} s)", self.maximum)
        jitter: Any = self.jitter
        if not is_finite(jitter) or not 0 <= jitter <= 1:
            raise ConfigError("jitter must be a number from 0 to 1", jitter)

    def goes_on(self, failures: int) -> bool:
        """
        Return whether there is another attempt after *failures* failures in a row.

        Example:
            >>> Backoff(attempts=2).goes_on(1), Backoff(attempts=2).goes_on(2)
            (True, False)
            >>> Backoff(attempts=None).goes_on(10**9)
            True
        """
        return self.attempts is None or failures < self.attempts

    def delay(self, n: int) -> float:
        """
        Return the seconds to wait after failure number *n* in a row.

        Args:
            n: The number of the failure, from 1, without an upper limit.

        Raises:
            ConfigError: If *n* is not an int >= 1.
        """
        integer("n", n)
        wait = min(self.maximum, self._grown(n - 1))
        if not self.jitter:
            return wait
        low = wait * (1 - self.jitter)
        high = min(self.maximum, wait * (1 + self.jitter))
        share = random.random() if self.rng is None else self.rng.random()
        # Rounding may put the sum slightly above its upper bound.
        return min(high, low + (high - low) * share)

    def _grown(self, times: int) -> float:
        if self.factor == 1.0 or self.first == 0.0:
            return self.first
        try:
            return self.first * self.factor**times
        except OverflowError:
            return self.maximum
