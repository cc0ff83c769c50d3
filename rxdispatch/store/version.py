"""The check that a server is new enough."""

from __future__ import annotations

from typing import Final

from rxdispatch.errors import ConfigError

__all__ = ["check_version", "version_of"]

_OLDEST: Final = {"valkey": (7, 2), "redis": (6, 2)}


def check_version(info: bytes) -> None:
    """
    Check the version in the reply to ``INFO server``.

    Raises:
        ConfigError: If the server is older than Redis 6.2 or Valkey 7.2, which lack commands
            that the scripts need.
    """
    kind, version = version_of(info)
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if len(numbers) == 2 and numbers < _OLDEST[kind]:
        least = ".".join(map(str, _OLDEST[kind]))
        raise ConfigError(f"server must be {kind.title()} >= {least}", version)


def version_of(info: bytes) -> tuple[str, str]:
    """Return ``redis`` or ``valkey``, and the version; empty if the server does not say."""
    fields: dict[str, str] = {}
    for line in info.decode("utf-8", "replace").splitlines():
        name, found, value = line.partition(":")
        if found:
            fields[name] = value.strip()
    # Valkey also reports the Redis version that it is compatible with.
    kind = "valkey" if "valkey_version" in fields else "redis"
    return kind, fields.get(f"{kind}_version", "")
