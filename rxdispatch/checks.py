"""Checks of arguments: numbers, names, ids and mappings of strings."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeGuard

from rxdispatch.errors import ConfigError

__all__ = [
    "ID_LIMIT",
    "board_name",
    "check_id_size",
    "check_kind",
    "integer",
    "is_finite",
    "key_name",
    "kind_tuple",
    "namespace_name",
    "strings",
    "utf8_size",
]

ID_LIMIT: Final = 1024
"""The most bytes of a task's id in UTF-8."""

KIND_LIMIT: Final = 200
"""The most characters of a task's kind."""


def integer(
    what: str, value: Any, least: int = 1, most: int | None = None, *, instead: str = ""
) -> int:
    """
    Return *value*, which must be an int in a range and not a bool.

    Args:
        what: The name of the argument in the error.
        value: The value.
        least: The smallest allowed value.
        most: The largest allowed value; None for no limit.
        instead: The alternatives of the argument in the error, such as ``" or None"``.

    Raises:
        ConfigError: If it is not.

    Example:
        >>> integer("count", 3)
        3
        >>> integer("count", 0)
        Traceback (most recent call last):
        rxdispatch.errors.ConfigError: count must be an int >= 1, got 0
    """
    if value.__class__ is not int or value < least or (most is not None and value > most):
        among = f">= {least}" if most is None else f"from {least} to {most}"
        raise ConfigError(f"{what} must be an int {among}{instead}", value)
    return int(value)


def is_finite(value: Any) -> TypeGuard[float]:
    """
    Return whether *value* is a number that a float can hold, and not a bool.

    Example:
        >>> [is_finite(value) for value in (1, 1.5, True, "1", float("nan"), 10**400)]
        [True, True, False, False, False, False]
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max


def key_name(what: str, value: Any) -> str:
    """
    Return *value*, which must be valid as part of a key on a server.

    Args:
        what: The name of the argument in the error.
        value: The value.

    Raises:
        ConfigError: If it is not a str of 1 to 200 characters that UTF-8 can encode.
    """
    if not isinstance(value, str) or not 1 <= len(value) <= 200:
        raise ConfigError(f"{what} must be a str of 1 to 200 characters", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{what} must be encodable as UTF-8", value) from None
    return value


_NOT_IN_BOARDS: Final = re.compile("[{}\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NOT_IN_NAMESPACES: Final = re.compile(r"[{}\s\x00-\x1f\x7f-\x9f*?\[\]\\^]")


def board_name(what: str, value: Any) -> str:
    """
    Return *value*, which must be valid as the name of a board.

    A key contains the name in braces, which tell a cluster and the pattern of an access list where
    the name ends. So the name itself must not contain braces.

    Raises:
        ConfigError: As :func:`key_name` does, or if it has braces or control characters.
    """
    name = key_name(what, value)
    if _NOT_IN_BOARDS.search(name):
        raise ConfigError(f"{what} must have no braces and no control characters", name)
    return name


def namespace_name(what: str, value: Any) -> str:
    """
    Return *value*, which must be valid as a namespace.

    A pattern of an access list, such as ``~{name:*``, must match this namespace and no other.

    Raises:
        ConfigError: As :func:`key_name` does, or if it has braces, spaces, control characters, or
            characters that are special in patterns.
    """
    name = key_name(what, value)
    if _NOT_IN_NAMESPACES.search(name):
        raise ConfigError(
            f"{what} must have no braces, spaces, control characters or any of *?[]^\\", name
        )
    return name


def utf8_size(text: str) -> int:
    """Return the size of *text* in bytes as stored; a file name may have undecodable bytes."""
    try:
        return len(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return len(text.encode("utf-8", "surrogatepass"))


def check_id_size(task_id: str) -> None:
    """
    Refuse an id that is too long.

    Servers and workers hold thousands of ids at once, and send them with every step of a task.

    Raises:
        ConfigError: If *task_id* has more than 1,024 bytes.
    """
    # A character takes at most four bytes.
    if len(task_id) * 4 > ID_LIMIT and (size := utf8_size(task_id)) > ID_LIMIT:
        raise ConfigError(f"id must be at most {ID_LIMIT} bytes in UTF-8", size)


def check_kind(kind: Any) -> None:
    """Raise ConfigError unless *kind* is a str of 1 to 200 characters."""
    if kind.__class__ is not str or not kind:
        raise ConfigError("kind must be a str that is not empty", kind)
    if len(kind) > KIND_LIMIT:
        raise ConfigError(f"kind must be at most {KIND_LIMIT} characters", len(kind))


def kind_tuple(kinds: Iterable[str] | None) -> tuple[str, ...] | None:
    """
    Return kinds of tasks, each once and in order; None means all kinds.

    Raises:
        ConfigError: If *kinds* is a str, is empty, or has an item that is no kind.

    Example:
        >>> kind_tuple(["b", "a", "b"])
        ('a', 'b')
    """
    if kinds is None:
        return None
    if isinstance(kinds, (str, bytes)) or not isinstance(kinds, Iterable):
        raise ConfigError("kinds must be an iterable of str, or None for all", kinds)
    found = list(kinds)
    for kind in found:
        check_kind(kind)
    if not found:
        raise ConfigError("kinds must not be empty; None means all", kinds)
    return tuple(sorted(set(found)))


def strings(what: str, given: Any) -> Mapping[str, str]:
    """
    Return a read-only copy of *given*, which must map str to str.

    Raises:
        ConfigError: If it does not; the error shows the first wrong pair of a mapping.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f"{what} must map str to str", given)
    pairs: dict[Any, Any] = {**given}
    for key, value in pairs.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ConfigError(f"{what} must map str to str", {key: value})
    return MappingProxyType(pairs)
