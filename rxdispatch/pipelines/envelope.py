"""``Envelope``: an item on its way through a pipeline."""

from __future__ import annotations

from typing import Any

__all__ = ["Envelope"]


class Envelope:
    """
    One item, from its submission to its result.

    The loop alone changes it; threads and processes return a new one.

    Attributes:
        id: The item's id.
        value: What the last stage made of it.
        since: When the work of the stage it is in began, on the loop's clock.
        attempt: Which try of that stage it is at, from 1.
    """

    __slots__ = ("attempt", "id", "since", "value")

    def __init__(self, id: str, value: Any, since: float = 0.0) -> None:  # noqa: A002
        self.id = id
        self.value = value
        self.since = since
        self.attempt = 1
