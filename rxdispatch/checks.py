"""What arguments must be: rules that several kinds of values have in common."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from rxdispatch.errors import ConfigError

__all__ = ["name_of", "strings"]


def name_of(what: str, value: Any) -> str:
    """
    Return *value*, which must be able to be part of a key on a server.

    Args:
        what: What it is called in the error.
        value: What was given.

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


def strings(what: str, given: Any) -> Mapping[str, str]:
    """
    Return a read-only copy of *given*, which must map str to str.

    Raises:
        ConfigError: If it does not; of a mapping the first pair that does not is named.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f"{what} must map str to str", given)
    pairs: dict[Any, Any] = {**given}
    for key, value in pairs.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ConfigError(f"{what} must map str to str", {key: value})
    return MappingProxyType(pairs)
