"""Servers that are too old are refused, by kind and version."""

from __future__ import annotations

import pytest
import structlog

from rxdispatch.config import StoreSettings
from rxdispatch.errors import ConfigError
from rxdispatch.store.advice import advise, vulnerable
from rxdispatch.store.client import Client
from rxdispatch.store.version import check_version
from tests.servers import Kind, any_server


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
    """The error states the rule and the version."""
    with pytest.raises(ConfigError) as caught:
        check_version(info)
    assert message == str(caught.value)


@pytest.mark.parametrize(
    "info", [b"redis_version:6.2.0\r\n", b"redis_version:7.2.4\r\nvalkey_version:9.1.2\r\n", b""]
)
def test_new_enough(info: bytes) -> None:
    """A server that does not report its version is accepted."""
    check_version(info)


@pytest.mark.parametrize(
    ("kind", "version", "expected"),
    [
        ("redis", "6.2.19", True),
        ("redis", "6.2.20", False),
        ("redis", "7.0.15", True),
        ("redis", "7.2.10", True),
        ("redis", "7.4.6", False),
        ("redis", "8.2.1", True),
        ("redis", "8.4.0", False),
        ("valkey", "7.2.10", True),
        ("valkey", "8.1.4", False),
        ("valkey", "9.1.2", False),
        ("valkey", "", False),
        ("redis", "unstable", False),
    ],
)
def test_versions_with_faults(kind: str, version: str, *, expected: bool) -> None:
    """In each branch, these are the versions before the fix; some branches never got it."""
    assert expected is vulnerable(kind, version)


def test_a_warning_comes_once() -> None:
    """The second connection of a process to the same server does not warn again."""
    general = b"redis_version:7.4.6\r\nvalkey_version:8.1.3\r\n"
    memory = b"# Memory\r\nmaxmemory_policy:allkeys-lru\r\n"
    with structlog.testing.capture_logs() as logs:
        advise("redis://once:1/0", general, memory)
        advise("redis://once:1/0", general, memory)
        advise("redis://once:2/0", b"", b"")
        advise("redis://once:2/0", b"", b"maxmemory_policy:noeviction\r\n")
    assert [
        ("eviction_policy", "allkeys-lru"),
        ("server_vulnerable", "valkey 8.1.3"),
    ] == [(log["event"], log.get("policy") or log.get("version")) for log in logs]


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_the_policy_of_a_server(kind: Kind) -> None:
    """The client reads the policy when it connects, without CONFIG, which an ACL often forbids."""
    async with any_server(kind) as target:
        for policy, expected in (("noeviction", []), ("volatile-ttl", ["volatile-ttl"])):
            client = Client(target, StoreSettings())
            await client.call("set", "CONFIG", "SET", "maxmemory-policy", policy)
            with structlog.testing.capture_logs() as logs:
                await client.open()
            await client.close()
            assert expected == [log["policy"] for log in logs if log["event"] == "eviction_policy"]
