"""``Stream``: the observable that rxdispatch returns; its error explains ``async for``."""

from __future__ import annotations

from typing import NoReturn, TypeVar

from reactivex import Observable

__all__ = ["Stream"]

T = TypeVar("T")


class Stream(Observable[T]):
    """
    An observable whose error names ``to_async_iterable`` when you use plain ``async for``.

    Example:
        >>> import asyncio
        >>> async def main() -> None:
        ...     async for _ in Stream():
        ...         pass
        >>> asyncio.run(main())
        Traceback (most recent call last):
        TypeError: an observable must be read with 'async for item in to_async_iterable(stream)'
    """

    def __aiter__(self) -> NoReturn:
        raise TypeError(
            "an observable must be read with 'async for item in to_async_iterable(stream)'"
        )
