"""The settings of a hub: frozen classes that check their values when created."""

from __future__ import annotations

import os
from typing import Any

import attrs

from rxdispatch.checks import integer, is_finite
from rxdispatch.errors import ConfigError
from rxdispatch.seconds import seconds

__all__ = ["FeedSettings", "Settings", "StoreSettings"]


def _duration(*, zero: bool) -> Any:
    def check(settings: Any, attribute: attrs.Attribute[float], value: float) -> None:
        # A timedelta becomes float seconds. A converter would need a function for each name.
        object.__setattr__(settings, attribute.name, seconds(attribute.name, value, zero=zero))

    return check


def _at_least(least: int) -> Any:
    def check(_: Any, attribute: attrs.Attribute[int], value: int) -> None:
        integer(attribute.name, value, least)

    return check


@attrs.frozen(slots=True, kw_only=True)
class StoreSettings:
    """
    Timeouts and the number of connections to the server.

    Args:
        timeout: Seconds without progress after which a call raises ``StoreUnavailableError``. They
            count from the last byte received or, for a large request, sent, so that a slow link
            gets the time it needs. No call takes more than ten times as long.
        attempt_timeout: Seconds without progress, counted in the same way, after which the client
            sends the same request over another connection. This is safe because requests are
            numbered.
        connections: The most connections a hub opens, besides the one for Pub/Sub.
        ping_interval: Seconds between pings on the Pub/Sub connection; each must be answered
            before the next is due.
        start_timeout: Seconds the embedded server may take to start.
    """

    timeout: float = attrs.field(default=2.0, validator=_duration(zero=False))
    attempt_timeout: float = attrs.field(default=0.9, validator=_duration(zero=False))
    connections: int = attrs.field(default=32, validator=_at_least(1))
    ping_interval: float = attrs.field(default=5.0, validator=_duration(zero=False))
    start_timeout: float = attrs.field(default=5.0, validator=_duration(zero=False))


def _share(_: Any, attribute: attrs.Attribute[float], value: Any) -> None:
    if not is_finite(value) or not 0 < value <= 1:
        raise ConfigError(f"{attribute.name} must be a number > 0 and <= 1", value)


def _path(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not (isinstance(value, (str, os.PathLike)) and os.fspath(value)):
        raise ConfigError(f"{attribute.name} must be a path or None", value)


@attrs.frozen(slots=True, kw_only=True)
class FeedSettings:
    """
    How feeds keep up with the registry, and when a silent node is removed.

    Args:
        pulse_interval: Seconds between two pulses, each of which proves that a feed has missed
            nothing. Each comes up to a fifth sooner, so that the pulses of many feeds spread out.
        check_timeout: Seconds that ``fetch`` waits for the registry before it returns the node that
            the feed has in memory.
        max_staleness: Seconds without such a proof after which every node is suspect.
        snapshot_path: A SQLite file on a local disk that keeps the fleet, shared by the processes
            of this host; none by default.
        max_snapshot_age: The greatest age in seconds of a snapshot that a feed works from.
        tombstone_ttl: Seconds for which the registry remembers removals; a feed that was
            disconnected for longer reads the whole fleet again.
        max_lapse_share: The share of a fleet of at least 10 nodes that may lapse within half a
            minute; if more do, that counts as a network fault and no node is removed.
        mass_lapse_delay: Seconds after which those nodes are removed nevertheless.
    """

    pulse_interval: float = attrs.field(default=1.0, validator=_duration(zero=False))
    check_timeout: float = attrs.field(default=0.05, validator=_duration(zero=False))
    max_staleness: float = attrs.field(default=60.0, validator=_duration(zero=False))
    snapshot_path: str | os.PathLike[str] | None = attrs.field(default=None, validator=_path)
    max_snapshot_age: float = attrs.field(default=10.0, validator=_duration(zero=False))
    tombstone_ttl: float = attrs.field(default=600.0, validator=_duration(zero=False))
    max_lapse_share: float = attrs.field(default=0.3, validator=_share)
    mass_lapse_delay: float = attrs.field(default=120.0, validator=_duration(zero=True))


def _feed(_: Any, __: attrs.Attribute[FeedSettings], value: Any) -> None:
    if not isinstance(value, FeedSettings):
        raise ConfigError("feed must be a FeedSettings object", value)


def _store(_: Any, __: attrs.Attribute[StoreSettings], value: Any) -> None:
    if not isinstance(value, StoreSettings):
        raise ConfigError("store must be a StoreSettings object", value)


@attrs.frozen(slots=True, kw_only=True)
class Settings:
    """
    Settings of a hub.

    Args:
        grace: Seconds that running handlers get when the hub closes normally.
        store: Timeouts and connections.
        feed: How node feeds keep up.

    Example:
        >>> Settings(grace=2.5).grace
        2.5
    """

    grace: float = attrs.field(default=10.0, validator=_duration(zero=True))
    store: StoreSettings = attrs.field(factory=StoreSettings, validator=_store)
    feed: FeedSettings = attrs.field(factory=FeedSettings, validator=_feed)
