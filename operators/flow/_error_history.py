"""``ErrorHistory``: the last errors of consecutive failures, each the context of the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Final, cast

__all__ = ["KEPT", "ErrorHistory"]

KEPT: Final = 4
"""How many errors in a row are kept, the newest included."""

# A user's error class may refuse assignments, as frozen dataclasses do.
_context: Any = vars(BaseException)["__context__"]
_forget_frames: Any = BaseException.with_traceback


class ErrorHistory:
    """
    The last :data:`KEPT` errors in a row.

    The number of tries may be infinite, so the history is bounded: older errors leave the chain of
    contexts, and all but the newest lose their tracebacks. The frames of a traceback hold their
    local variables, such as requests, buffers and sockets.

    Invariant: the errors in ``_row`` are linked by ``__context__``, and each link was set here. An
    error that has a cause or a context of its own, or is in the row already, starts a new row.

    Example:
        >>> history = ErrorHistory()
        >>> errors = [OSError(n) for n in range(9)]
        >>> for error in errors:
        ...     history.add(error)
        >>> errors[8].__context__ is errors[7], errors[5].__context__
        (True, None)
    """

    __slots__ = ("_row",)

    def __init__(self) -> None:
        self._row: deque[BaseException] = deque()

    def add(self, error: BaseException) -> None:
        """Make the error before *error* its context."""
        row = self._row
        if not isinstance(error, BaseException):  # pyright: ignore[reportUnnecessaryIsInstance]
            # RxPY's sources may fail with a string.
            row.clear()
            return
        if row and row[-1] is not error:
            mine = {id(link) for link in _links(error)}
            before = list(_links(row[-1]))
            for link in before:
                if id(link) not in mine:
                    _forget_frames(link, None)
            if len(mine) > 1 or any(link is error for link in before):
                row.clear()
            else:
                _context.__set__(error, row[-1])
        elif row:
            return
        row.append(error)
        if len(row) > KEPT:
            row.popleft()
            _context.__set__(row[0], None)

    def clear(self) -> None:
        """Start a new row."""
        self._row.clear()


def _links(error: BaseException) -> Iterator[BaseException]:
    """Yield *error*, its causes and contexts, and the parts of groups, each once."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        # Errors of users can form a cycle: "raise error from error" is legal.
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        waiting += (link.__cause__, link.__context__)
        if isinstance(link, BaseExceptionGroup):
            parts: Any = cast("Any", link).exceptions
            waiting += parts
