"""``seconds``: checks a duration and returns it as float seconds."""

from __future__ import annotations

from datetime import timedelta

from rxdispatch.checks import is_finite
from rxdispatch.errors import ConfigError

__all__ = ["seconds"]


def seconds(name: str, value: float | timedelta, *, zero: bool = True) -> float:
    """
    Return a duration as float seconds.

    Args:
        name: The name of the argument in the error.
        value: Seconds, or a ``timedelta``.
        zero: Whether 0 is allowed.

    Raises:
        ConfigError: If it is not a finite number, negative, or 0 where *zero* is False.
    """
    total = getattr(value, "total_seconds", None)
    number = total() if total is not None else value
    rule = f"{name} must be a finite number of seconds {'>= 0' if zero else '> 0'}"
    if not is_finite(number) or number < 0 or (number == 0 and not zero):
        raise ConfigError(rule, value)
    return float(number)
