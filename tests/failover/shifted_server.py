"""Servers whose clocks are shifted, and that replicate from one another."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from rxdispatch.config import StoreSettings
from rxdispatch.store.client import Client
from rxdispatch.store.embedded.binary import wheel_path
from rxdispatch.store.url import Target
from tests.failures.fleet import eventually
from tests.proxy import Proxy
from tests.servers import NO_REDIS, Kind

__all__ = ["Pair", "ShiftedServer", "pair"]

_SHIFT: Final = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long shift(void) { const char *s = getenv("SHIFT"); return s ? atol(s) : 0; }

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(clock, now);
  if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += shift();
  return result;
}

int gettimeofday(struct timeval *now, void *zone) {
  struct timespec precise;
  int result = clock_gettime(CLOCK_REALTIME, &precise);
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return result;
}

time_t time(time_t *place) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (place) *place = now.tv_sec;
  return now.tv_sec;
}
"""


@cache
def _library() -> str:
    """Compile the library that shifts the clock of a process; skip the test without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = Path(tempfile.mkdtemp(prefix="rxd-shift-"))
    source, library = folder / "shift.c", folder / "shift.so"
    source.write_text(_SHIFT)
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return str(library)


class ShiftedServer:
    """
    A server on a port of 127.0.0.1 without persistence, whose clock is *shift* seconds ahead.

    Args:
        kind: Which program.
        shift: Seconds; negative if the clock is behind.
    """

    def __init__(self, kind: Kind, shift: int = 0) -> None:
        program = wheel_path() if kind == "valkey" else shutil.which("redis-server")
        if program is None:
            pytest.skip(NO_REDIS)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = int(listener.getsockname()[1])
        self.target = Target(scheme="redis", host="127.0.0.1", port=port)
        environment = {"SHIFT": str(shift), "LD_PRELOAD": _library()} if shift else {}
        self._folder = tempfile.TemporaryDirectory(prefix="rxd-shifted-")
        self._process = subprocess.Popen(
            [
                *(program, "--bind", "127.0.0.1", "--port", str(port)),
                *("--dir", self._folder.name, "--save", "", "--appendonly", "no"),
                *("--repl-diskless-sync-delay", "0"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment,
        )
        self._client = Client(self.target, StoreSettings())

    async def call(self, *command: Any) -> Any:
        """Send any command, over a connection of its own."""
        return await self._client.call("test", *command)

    async def time(self) -> int:
        """Return the server's clock, in microseconds."""
        seconds, rest = await self.call("TIME")
        return int(seconds) * 1_000_000 + int(rest)

    async def follow(self, primary: ShiftedServer) -> None:
        """Become a replica of *primary*, and wait until it has its data."""
        await self.call("REPLICAOF", primary.target.host, primary.target.port)

        async def linked() -> bool:
            return b"master_link_status:up" in await self.call("INFO", "replication")

        await eventually(linked)

    async def promote(self) -> None:
        """Become a primary; what the old one writes from now on is lost."""
        await self.call("REPLICAOF", "NO", "ONE")

    async def close(self) -> None:
        """Kill the server."""
        try:
            await self._client.close()
        finally:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._folder.cleanup()


@attrs.frozen
class Pair:
    """
    A primary, a replica with another clock, and a proxy before the primary.

    Attributes:
        old: The primary.
        new: The replica.
        proxy: Clients reach the server through it.
    """

    old: ShiftedServer
    new: ShiftedServer
    proxy: Proxy

    @property
    def url(self) -> str:
        """The URL of whatever server is the primary."""
        return self.proxy.target.safe

    async def replicate(self) -> None:
        """Wait until the replica has everything that was written."""

        async def offset(server: ShiftedServer) -> int:
            info = await server.call("INFO", "replication")
            return int(info.partition(b"master_repl_offset:")[2].split()[0])

        written = await offset(self.old)

        async def there() -> bool:
            return await offset(self.new) >= written

        await eventually(there)

    async def stop_replicating(self) -> None:
        """Lose what is written from now on."""
        await self.new.promote()

    def fail_over(self) -> None:
        """Cut all connections, and lead new ones to the new server."""
        self.proxy.upstream = self.new.target
        self.proxy.cut()


@asynccontextmanager
async def pair(kind: Kind, shift: int = 0) -> AsyncGenerator[Pair]:
    """Run two servers; the clock of the second is *shift* seconds ahead."""
    old = ShiftedServer(kind)
    try:
        new = ShiftedServer(kind, shift)
        try:
            await new.follow(old)
            async with Proxy(old.target, tcp=True) as proxy:
                yield Pair(old, new, proxy)
        finally:
            await new.close()
    finally:
        await old.close()
