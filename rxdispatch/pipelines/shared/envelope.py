"""``Envelope``: an item in a pipeline, with its id and the state of its current stage."""

from __future__ import annotations

from typing import Any

__all__ = ["Envelope"]


class Envelope:
    """
    One item, from its submission to its result.

    Only the loop changes it; threads and processes return a new one.

    Attributes:
        id: The item's id.
        value: The result of the latest stage that it went through; at first the submitted item.
        since: When its current stage began to work on it, on the loop's clock.
        attempt: The number of the current attempt in that stage, from 1.
        token: The token of its claim, if it came from a board.
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
