"""``StoredOptions``: the options of a board, kept in its header."""

from __future__ import annotations

from struct import Struct
from typing import Final

from rxdispatch.boards.engine import Options
from rxdispatch.boards.shm.storage import layout
from rxdispatch.boards.shm.storage.mapping import Mapping
from rxdispatch.errors import ConfigError

__all__ = ["StoredOptions"]

_DOUBLE: Final = Struct("<d")
_RAW: Final = Struct("<Q")


class StoredOptions:
    """
    The options of a board, with one word in its header for each.

    A word is 0 if no handle has given the option, else 1 plus the value, or plus the bits of the
    float for ``remember``.
    """

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping

    def agree(self, options: Options) -> None:
        """
        Store the options that a handle gives.

        Raises:
            ConfigError: If another handle has given a different value before, or ``remember`` is
                more than three days.
        """
        if options.remember is not None and options.remember > layout.LEASE_LIMIT:
            raise ConfigError(
                f"remember must be at most {layout.LEASE_LIMIT:g} s in shared memory",
                options.remember,
            )
        self.read().merged(options)
        for at, value in (
            (layout.MAX_CRASHES, options.max_crashes),
            (layout.REMEMBER, options.remember),
            (layout.DEAD_LIMIT, options.dead_limit),
        ):
            if value is None:
                continue
            raw = 1 + (_RAW.unpack(_DOUBLE.pack(value))[0] if at == layout.REMEMBER else int(value))
            if self._mapping.cas(at, 0, raw) not in (0, raw):
                self.read().merged(options)

    def read(self) -> Options:
        """Return the stored options."""
        load = self._mapping.load
        crashes, dead = load(layout.MAX_CRASHES), load(layout.DEAD_LIMIT)
        return Options(
            crashes - 1 if crashes else None,
            self.remember if load(layout.REMEMBER) else None,
            dead - 1 if dead else None,
        )

    @property
    def remember(self) -> float:
        """Seconds for which the board remembers done tasks."""
        stored = self._mapping.load(layout.REMEMBER)
        seconds: float = _DOUBLE.unpack(_RAW.pack(stored - 1))[0] if stored else 0.0
        return seconds

    @property
    def max_crashes(self) -> int:
        """How many workers a task may lose before it is dead."""
        return self.read().filled()[0]

    @property
    def dead_limit(self) -> int:
        """How many dead letters the board keeps."""
        return self.read().filled()[2]
