"""The names of the stages of one pipeline."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from rxdispatch.errors import ConfigError
from rxdispatch.pipelines.stages.stage import Stage

__all__ = ["with_names"]


def with_names(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """
    Return *stages* under names that differ.

    A name that was given stays. Of stages that are called like their function, the second gets
    ``-2`` behind its name, the third ``-3``, and so on.

    Raises:
        ConfigError: If two were given the same name.
    """
    taken: set[str] = set()
    for stage in stages:
        if stage.named:
            if stage.name in taken:
                raise ConfigError("stages must have names that differ", stage.name)
            taken.add(stage.name)
    return tuple(stage if stage.named else _renamed(stage, taken) for stage in stages)


def _renamed(stage: Stage, taken: set[str]) -> Stage:
    name, number = stage.name, 1
    while name in taken:
        number += 1
        name = f"{stage.name}-{number}"
    taken.add(name)
    return stage if name == stage.name else attrs.evolve(stage, name=name)
