"""``Secret``: a string that prints as ``***``."""

from __future__ import annotations

__all__ = ["Secret"]


class Secret:
    """
    A string that prints as ``***``; only :meth:`reveal` returns it.

    It has no ``__dict__`` and cannot be pickled, so that a dump of its owner does not contain it.

    Example:
        >>> Secret("open sesame")
        ***
        >>> Secret("open sesame").reveal()
        'open sesame'
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the string itself."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> str:
        raise TypeError("a Secret must not be pickled")
