"""Settings: frozen, checked when made."""

from __future__ import annotations

from typing import Any

import attrs

from rxdispatch.errors import ConfigError
from rxdispatch.task import seconds

__all__ = ["Settings", "StoreSettings"]


def _duration(*, zero: bool) -> Any:
    def check(_: Any, attribute: attrs.Attribute[float], value: float) -> None:
        seconds(attribute.name, value, zero=zero)

    return check


def _at_least(least: int) -> Any:
    def check(_: Any, attribute: attrs.Attribute[int], value: int) -> None:
        if value.__class__ is not int or value < least:
            raise ConfigError(f"{attribute.name} must be an int >= {least}", value)

    return check


@attrs.frozen(slots=True, kw_only=True)
class StoreSettings:
    """
    How the server is talked to.

    Args:
        limit: Seconds after which a call that got no answer raises ``StoreUnavailableError``.
        attempt: Seconds one try within that limit may take; then the same request is sent
            again over another connection, which is safe because requests are numbered.
        connections: Most connections a hub opens, beside the one for Pub/Sub.
        ping: Seconds between pings on the Pub/Sub connection, each of which must be answered
            before the next is due.
        start: Seconds the embedded server may take to start.
    """

    limit: float = attrs.field(default=2.0, validator=_duration(zero=False))
    attempt: float = attrs.field(default=0.9, validator=_duration(zero=False))
    connections: int = attrs.field(default=32, validator=_at_least(1))
    ping: float = attrs.field(default=5.0, validator=_duration(zero=False))
    start: float = attrs.field(default=5.0, validator=_duration(zero=False))


def _store(_: Any, __: attrs.Attribute[StoreSettings], value: Any) -> None:
    if not isinstance(value, StoreSettings):
        raise ConfigError("store must be a StoreSettings object", value)


@attrs.frozen(slots=True, kw_only=True)
class Settings:
    """
    Settings of a hub.

    Args:
        grace: Seconds that running handlers get when the hub closes normally.
        store: How the server is talked to.

    Example:
        >>> Settings(grace=2.5).grace
        2.5
    """

    grace: float = attrs.field(default=10.0, validator=_duration(zero=True))
    store: StoreSettings = attrs.field(factory=StoreSettings, validator=_store)
