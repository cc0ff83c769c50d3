"""Warnings about a server's setup: data that it may lose, and known vulnerabilities."""

from __future__ import annotations

from typing import Final

from rxdispatch.log import get_logger
from rxdispatch.store.version import version_of

__all__ = ["advise"]

log = get_logger(__name__)

_PATCHED: Final[dict[str, tuple[tuple[int, int, int], ...]]] = {
    "redis": ((6, 2, 20), (7, 2, 11), (7, 4, 6), (8, 0, 4), (8, 2, 2)),
    "valkey": ((7, 2, 11), (8, 0, 6), (8, 1, 4)),
}
"""The first version of each branch without CVE-2025-49844, -46817, -46818 and -46819."""

_advised: set[tuple[str, str]] = set()


def advise(server: str, general: bytes, memory: bytes) -> None:
    """
    Log a warning for each risk in the server's setup, once per process and server.

    Args:
        server: The server's URL without a password.
        general: The reply to ``INFO server``.
        memory: The reply to ``INFO memory``; may be empty.
    """
    policy = _field(memory, b"maxmemory_policy")
    if policy not in ("", "noeviction"):
        _warn("eviction_policy", server, policy=policy)
    kind, version = version_of(general)
    if vulnerable(kind, version):
        _warn("server_vulnerable", server, version=f"{kind} {version}")


def vulnerable(kind: str, version: str) -> bool:
    """
    Whether a version has the Lua vulnerabilities that let a script leave its sandbox.

    Distributions patch older versions without changing the number. A version that cannot be read,
    or a branch newer than the vulnerabilities, counts as patched.
    """
    numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    if len(numbers) != 3:
        return False
    patched = _PATCHED[kind]
    for first in patched:
        if numbers[:2] == first[:2]:
            return numbers < first
    # No release of this branch has the patch.
    return numbers < patched[-1]


def _warn(event: str, server: str, **keys: str) -> None:
    if (event, server) not in _advised:
        _advised.add((event, server))
        log.warning(event, server=server, **keys)


def _field(info: bytes, name: bytes) -> str:
    for line in info.splitlines():
        found, _, value = line.partition(b":")
        if found == name:
            return value.strip().decode("utf-8", "replace")
    return ""
