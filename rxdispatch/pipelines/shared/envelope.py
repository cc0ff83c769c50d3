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
        token: That of its claim, if it came from a board.
    """

    __slots__ = ("attempt", "id", "since", "token", "value")

    def __init__(
        self,
        id: str,  # noqa: A002
        value: Any,
        since: float = 0.0,
        token: int = 0,
    ) -> None:
        self.id = id
        self.value = value
        self.since = since
        self.attempt = 1
        self.token = token
