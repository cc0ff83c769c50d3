"""One server for all systems, on TCP and on a unix socket."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

import attrs
from redis import Redis
from redis.exceptions import ConnectionError as NotYetError

from benchmarks.figures.machine import server_version
from rxdispatch.files.private import PrivateDirectory
from rxdispatch.store.embedded.binary import wheel_path
from rxdispatch.store.embedded.guarded_process import GuardedProcess

__all__ = ["Server", "serve"]

_TRIES: Final = 200
_PAUSE: Final = 0.02


@attrs.frozen
class Server:
    """
    A running server.

    Attributes:
        tcp: Its URL on the loopback interface.
        unix: Its URL on a unix socket.
        redis: A connection to it.
    """

    tcp: str
    unix: str
    redis: Any

    @property
    def version(self) -> str:
        """Its name and version."""
        return server_version(self.redis.info("server"))

    def count(self, commands: tuple[str, ...]) -> int:
        """Return the sum of the numbers that the commands answer."""
        total = 0
        for command in commands:
            answer: Any = self.redis.execute_command(*command.split())
            # XPENDING answers with a mapping that contains the number.
            number: int = answer["pending"] if hasattr(answer, "keys") else answer
            total += number
        return total

    async def emptied(self, commands: tuple[str, ...], seconds: float = 5.0) -> bool:
        """Return whether nothing is left; wait for a short time until that is so."""
        for _ in range(int(seconds / _PAUSE)):
            if not self.count(commands):
                return True
            await asyncio.sleep(_PAUSE)
        return False


@contextmanager
def serve() -> Generator[Server]:
    """Run a server without persistence, which ends with this process, however that ends."""
    private = PrivateDirectory.create()
    path = private.path / "server.sock"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [wheel_path(), "--bind", "127.0.0.1", "--port", str(port)]
    command += ["--unixsocket", str(path), "--dir", str(private.path), "--loglevel", "warning"]
    command += ["--save", "", "--appendonly", "no", "--maxclients", "2000"]
    guarded: GuardedProcess | None = None
    log = os.open(private.path / "log", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        guarded = GuardedProcess(command, log=log, keep=[private.lock.fd])
        redis = Redis(host="127.0.0.1", port=port)
        _await(redis)
        yield Server(f"redis://127.0.0.1:{port}/0", f"unix://{path}", redis)
        redis.close()
    finally:
        os.close(log)
        if guarded is not None:
            guarded.discard()
        private.remove()


def _await(redis: Any) -> None:
    for _ in range(_TRIES):
        try:
            redis.ping()
        except NotYetError:
            time.sleep(_PAUSE)
        else:
            return
    raise TimeoutError("the server must answer within 4 s")
