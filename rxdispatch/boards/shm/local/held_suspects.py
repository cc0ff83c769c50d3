"""``HeldSuspects``: the suspects that the workers of this process hold."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["HeldSuspects"]

Board = tuple[int, int]

# By board and worker: the weight of each claim, by its token. All handles of a process share this,
# as two of them may claim for the same worker.
_held: dict[tuple[Board, str], dict[int, int]] = {}


class HeldSuspects:
    """
    The weight of the suspects that each worker holds.

    A claim that has ended is dropped when :meth:`weight` finds that its token does not hold.
    Workers with the same label in several processes count separately; the default label contains
    the process id.

    Args:
        board: The device and inode of the board's file.
        holds: Returns whether the claim with a token has not ended.
    """

    def __init__(self, board: Board, holds: Callable[[int], bool]) -> None:
        self._board = board
        self._holds = holds

    def weight(self, worker: str) -> int:
        """Return the weight of all suspects that *worker* holds."""
        key = self._board, worker
        claims = _held.get(key)
        if not claims:
            return 0
        for token in [token for token in claims if not self._holds(token)]:
            del claims[token]
        if not claims:
            del _held[key]
        return sum(claims.values())

    def add(self, worker: str, token: int, weight: int) -> None:
        """Add a claim of a suspect."""
        _held.setdefault((self._board, worker), {})[token] = weight
