"""``spawn``: starts an embedded server with its settings."""

from __future__ import annotations

import os

from rxdispatch.files.private import PrivateDirectory
from rxdispatch.store.embedded.binary import Binary
from rxdispatch.store.embedded.data_dir import DataDir
from rxdispatch.store.embedded.guarded_process import Guard, GuardedProcess

__all__ = ["spawn"]


def spawn(
    binary: Binary, private: PrivateDirectory, home: DataDir | None, guard: Guard | None
) -> GuardedProcess:
    """
    Start the server.

    Args:
        binary: The program.
        private: The folder of its socket and its log.
        home: The folder of its data; None to keep no data.
        guard: How the server dies with its owner; None chooses by the system.

    Raises:
        OSError: If it cannot be started.
    """
    options = {
        "port": "0",
        "unixsocket": str(private.path / "server.sock"),
        "unixsocketperm": "700",
        "protected-mode": "yes",
        # The guard changes into the folder, by its descriptor.
        "dir": "." if home else str(private.path),
        "save": "",
        "appendonly": "yes" if home else "no",
        # The server writes before each reply, so killing it loses nothing. With "everysec" it would
        # delay the write for up to 2 s while the disk is slow, and still reply.
        "appendfsync": "no",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "warning",
        "logfile": "",
    }
    if binary.hardened:
        options |= {"enable-module-command": "no", "enable-debug-command": "no"}
    command = [binary.path]
    for name, value in options.items():
        command += [f"--{name}", value]
    keep = [private.lock.fd] if home is None else [private.lock.fd, home.lock.fd]
    log = os.open(private.path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return GuardedProcess(
            command, log=log, keep=keep, guard=guard, folder=None if home is None else home.fd
        )
    finally:
        os.close(log)
