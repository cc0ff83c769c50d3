"""What the arguments of a pipeline must be."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import Any

from reactivex import Observable

from rxdispatch.errors import ConfigError
from rxdispatch.pipelines.stages.stage import Stage

__all__ = ["Source", "board_name_of", "checked_hub", "checked_source"]

Source = Observable[Any] | AsyncIterable[Any] | Iterable[Any]


def board_name_of(stage: Stage) -> str:
    """Return the name of the board of *stage*, which has one."""
    board = stage.board
    assert board is not None
    return board if isinstance(board, str) else board.name


def checked_hub(hub: Any) -> None:
    """Refuse what has no boards with a ConfigError."""
    if not callable(getattr(hub, "board", None)):
        raise ConfigError("hub must be a Hub or None", hub)


def checked_source(source: Any) -> None:
    """Refuse what a pipeline cannot be fed from with a ConfigError."""
    if not isinstance(source, (Observable, AsyncIterable, Iterable)):
        raise ConfigError("source must be an Observable, an async iterable or an iterable", source)
