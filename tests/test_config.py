"""Settings are frozen, and are checked when they are made."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import attrs
import pytest

from rxdispatch.config import FeedSettings, Settings, StoreSettings
from rxdispatch.errors import ConfigError


def test_defaults() -> None:
    """The defaults are the figures in the documentation."""
    settings = Settings()
    assert 10.0 == settings.grace
    assert 2.0 == settings.store.timeout
    assert settings.store.attempt_timeout < settings.store.timeout


@pytest.mark.parametrize("name", ["timeout", "attempt_timeout", "ping_interval", "start_timeout"])
@pytest.mark.parametrize("value", [0, 0.0, -1.0, math.nan, math.inf, "1", None, True])
def test_durations_of_the_store(name: str, value: Any) -> None:
    """Each duration is a finite number of seconds above 0."""
    with pytest.raises(ConfigError, match=rf"^{name} must be a finite number of seconds > 0, got"):
        StoreSettings(**{name: value})


@pytest.mark.parametrize("value", [0, -1, 1.0, "4", None, True])
def test_connections(value: Any) -> None:
    """There is at least one connection."""
    with pytest.raises(ConfigError, match=r"^connections must be an int >= 1, got"):
        StoreSettings(connections=value)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "1", None, True])
def test_bad_grace(value: Any) -> None:
    """The grace is a finite number of seconds; 0 means none."""
    with pytest.raises(ConfigError, match=r"^grace must be a finite number of seconds >= 0, got"):
        Settings(grace=value)
    assert 0 == Settings(grace=0).grace


def test_a_store_must_be_settings() -> None:
    """A mapping is refused."""
    bad: Any = {"timeout": 1.0}
    with pytest.raises(ConfigError, match=r"^store must be a StoreSettings object, got"):
        Settings(store=bad)


def test_frozen_and_by_name() -> None:
    """Settings cannot change, and are passed by keyword."""
    settings: Any = Settings()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        settings.grace = 1.0
    made: Any = Settings
    with pytest.raises(TypeError):
        made(1.0)
    assert attrs.evolve(settings, grace=1.0) == Settings(grace=1.0)


def test_defaults_of_feeds() -> None:
    """The defaults are the figures in the documentation."""
    feed = Settings().feed
    assert (1.0, 0.05, 60.0) == (feed.pulse_interval, feed.check_timeout, feed.max_staleness)
    assert (None, 10.0, 600.0) == (feed.snapshot_path, feed.max_snapshot_age, feed.tombstone_ttl)
    assert (0.3, 120.0) == (feed.max_lapse_share, feed.mass_lapse_delay)


@pytest.mark.parametrize(
    "name",
    ["pulse_interval", "check_timeout", "max_staleness", "max_snapshot_age", "tombstone_ttl"],
)
@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, "1", None, True])
def test_durations_of_feeds(name: str, value: Any) -> None:
    """Each duration is a finite number of seconds above 0."""
    with pytest.raises(ConfigError, match=rf"^{name} must be a finite number of seconds > 0, got"):
        FeedSettings(**{name: value})


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, "1", None, True])
def test_patience(value: Any) -> None:
    """The delay is a finite number of seconds; 0 means none."""
    with pytest.raises(ConfigError, match=r"^mass_lapse_delay must be a finite number of sec"):
        FeedSettings(mass_lapse_delay=value)
    assert 0 == FeedSettings(mass_lapse_delay=0).mass_lapse_delay


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf, "1", None, True])
def test_shares(value: Any) -> None:
    """A share is above 0 and at most 1."""
    with pytest.raises(ConfigError, match=r"^max_lapse_share must be"):
        FeedSettings(max_lapse_share=value)
    assert 1.0 == FeedSettings(max_lapse_share=1.0).max_lapse_share


@pytest.mark.parametrize("value", [5, b"x", True, ["x"]])
def test_paths_of_snapshots(value: Any) -> None:
    """A path is a str or a path object."""
    with pytest.raises(ConfigError, match=r"^snapshot_path must be"):
        FeedSettings(snapshot_path=value)
    assert Path("x") == FeedSettings(snapshot_path=Path("x")).snapshot_path


def test_a_feed_must_be_settings() -> None:
    """A mapping is refused."""
    bad: Any = {"pulse_interval": 1.0}
    with pytest.raises(ConfigError, match=r"^feed must be a FeedSettings object, got"):
        Settings(feed=bad)
