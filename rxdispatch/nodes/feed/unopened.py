"""``Unopened``: what a feed has in place of its nodes until it is entered."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from rxdispatch.errors import ConfigError
from rxdispatch.node import Node

__all__ = ["RULE", "Unopened"]

RULE: Final = "feed must be open; use it with 'async with'"


class Unopened(dict[str, Node]):
    """A mapping whose reads raise, so that an unopened feed is not taken for an empty fleet."""

    def get(self, *_: Any) -> NoReturn:
        """Raise ConfigError."""
        raise ConfigError(RULE, "new")

    def values(self) -> NoReturn:
        """Raise ConfigError."""
        raise ConfigError(RULE, "new")
