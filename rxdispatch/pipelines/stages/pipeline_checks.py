"""Rules for the arguments of a pipeline."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Sequence
from typing import Any

import attrs
from reactivex import Observable

from rxdispatch.errors import ConfigError
from rxdispatch.pipelines.stages.stage import Stage

__all__ = ["Source", "board_name_of", "check_boards", "check_source", "with_names"]

Source = Observable[Any] | AsyncIterable[Any] | Iterable[Any]


def board_name_of(stage: Stage) -> str:
    """Return the name of the board of *stage*, which must have one."""
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


def with_names(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """
    Return *stages* with distinct names.

    A name that the user gave stays. Among stages that have the name of their function, the second
    gets the suffix ``-2``, the third ``-3``, and so on.

    Raises:
        ConfigError: If two were given the same name.
    """
    taken: set[str] = set()
    for stage in stages:
        if stage.named:
            if stage.name in taken:
                raise ConfigError("stages must have distinct names", stage.name)
            taken.add(stage.name)
    return tuple(stage if stage.named else _renamed(stage, taken) for stage in stages)


def _renamed(stage: Stage, taken: set[str]) -> Stage:
    name, number = stage.name, 1
    while name in taken:
        number += 1
        name = f"{stage.name}-{number}"
    taken.add(name)
    return stage if name == stage.name else attrs.evolve(stage, name=name)
