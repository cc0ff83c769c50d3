"""Servers that are too old are refused by name and number."""

from __future__ import annotations

import pytest

from rxdispatch.errors import ConfigError
from rxdispatch.store.version import check_version


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (b"redis_version:6.0.16\r\n", "server must be Redis >= 6.2, got '6.0.16'"),
        (
            b"redis_version:7.2.4\r\nvalkey_version:7.0.1\r\n",
            "server must be Valkey >= 7.2, got '7.0.1'",
        ),
    ],
)
def test_too_old(info: bytes, message: str) -> None:
    """The rule and the version are named."""
    with pytest.raises(ConfigError) as caught:
        check_version(info)
    assert message == str(caught.value)


@pytest.mark.parametrize(
    "info", [b"redis_version:6.2.0\r\n", b"redis_version:7.2.4\r\nvalkey_version:9.1.2\r\n", b""]
)
def test_new_enough(info: bytes) -> None:
    """What says nothing of its version is given the benefit of the doubt."""
    check_version(info)
