"""Rules for the arguments of a pipeline."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import Any

from reactivex import Observable

from rxdispatch.errors import ConfigError
from rxdispatch.pipelines.stages.stage import Stage

__all__ = ["Source", "board_name_of", "check_boards", "check_source"]

Source = Observable[Any] | AsyncIterable[Any] | Iterable[Any]


def board_name_of(stage: Stage) -> str:
    """Return the name of the board of *stage*, which has one."""
    board = stage.board
    assert board is not None
    return board if isinstance(board, str) else board.name


def check_boards(boards: Any) -> None:
    """Raise a ConfigError unless *boards* can be asked for a board by its name."""
    if not callable(boards):
        raise ConfigError("boards must be a function, such as hub.board, or None", boards)


def check_source(source: Any) -> None:
    """Raise a ConfigError unless a pipeline can be fed from *source*."""
    if not isinstance(source, (Observable, AsyncIterable, Iterable)):
        raise ConfigError("source must be an Observable, an async iterable or an iterable", source)
