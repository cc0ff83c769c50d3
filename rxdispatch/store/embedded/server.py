"""``EmbeddedServer``: a private Valkey server that ends with its owner."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final, Self
from weakref import finalize

from rxdispatch.errors import ConfigError, StoreUnavailableError
from rxdispatch.files.private import PrivateDirectory
from rxdispatch.store.embedded.binary import find_binary
from rxdispatch.store.embedded.data_dir import DataDir
from rxdispatch.store.embedded.guarded_process import Guard, GuardedProcess, check_interpreter
from rxdispatch.store.embedded.launch import spawn
from rxdispatch.store.url import Target

__all__ = ["EmbeddedServer"]

_STOP_WAIT: Final = 5.0
_FIRST_PAUSE: Final = 0.002
_LONGEST_PAUSE: Final = 0.02


class EmbeddedServer:
    """
    A Valkey server that belongs to this process.

    It listens on a unix socket in a private directory and on no TCP port. It ends with its owner,
    even if the owner is killed. The private directory of a killed owner is removed when the next
    one is created. Made by :meth:`start`.

    With a *data_dir* it writes each change to a file before it replies, so acknowledged changes
    survive any end of the server or its owner. A crash of the machine loses the changes that the
    kernel has not written to the disk yet: up to about half a minute on Linux.

    On Linux the owner is the *thread* that runs :meth:`start`: the server ends with it.

    Attributes:
        socket_path: The path of its unix socket.
        pid: The id of its process.
        target: The address for clients.

    Example:
        >>> import asyncio
        >>> async def main() -> str:
        ...     server = await EmbeddedServer.start()
        ...     await server.stop()
        ...     return server.target.scheme
        >>> asyncio.run(main())
        'unix'
    """

    def __init__(
        self, guarded: GuardedProcess, private: PrivateDirectory, home: DataDir | None, pid: int
    ) -> None:
        self.pid = pid
        self.socket_path = str(private.path / "server.sock")
        self.target = Target(scheme="unix", path=self.socket_path)
        self._guarded = guarded
        self._durable = home is not None
        # Runs once: in stop(), when this object is collected, or when the interpreter exits.
        self._discard = finalize(self, _discard, guarded, private, home, os.getpid())

    @classmethod
    async def start(
        cls,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        timeout: float = 5.0,
        _guard: Guard | None = None,
    ) -> EmbeddedServer:
        """
        Start a server and wait until it answers.

        Args:
            data_dir: The folder of its data, for one owner at a time. Its files can make the server
                run code, so it must be writable by this user only. None for a server that keeps
                nothing when it stops.
            timeout: Seconds that the server may be silent. While it answers that it is loading its
                data, the wait goes on.

        Raises:
            ConfigError: If there is no program for this system, ``RXDISPATCH_VALKEY`` names none,
                *data_dir* cannot be used, is in use or may hold files of another user, there is no
                safe place for a socket, the application is frozen, or the server refuses to start.
            StoreUnavailableError: If it does not answer in time.
        """
        check_interpreter()
        binary = await find_binary()
        home = None if data_dir is None else await DataDir.open(data_dir)
        private: PrivateDirectory | None = None
        guarded: GuardedProcess | None = None
        try:
            private = PrivateDirectory.create()
            guarded = spawn(binary, private, home, _guard)
            pid = await _ready(guarded, private.path, timeout)
            return cls(guarded, private, home, pid)
        except BaseException as error:
            _discard(guarded, private, home, os.getpid())
            if isinstance(error, OSError):
                raise ConfigError(f"the embedded server must start: {error}") from error
            raise

    async def stop(self) -> None:
        """
        End the server and remove its files; a second call does nothing.

        A server with a *data_dir* gets a SIGTERM and 5 s to write its data to the disk. If this
        call is cancelled, it kills the server at once; acknowledged changes survive that too.
        """
        if not self._discard.alive:
            return
        try:
            if self._durable:
                self._guarded.terminate()
                await _ended(self._guarded, _STOP_WAIT)
            self._guarded.kill()
            await _ended(self._guarded, _STOP_WAIT)
        finally:
            self._discard()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def __repr__(self) -> str:
        return f"<EmbeddedServer pid={self.pid} {self.target.safe}>"


async def _ready(guarded: GuardedProcess, folder: Path, timeout: float) -> int:
    """Wait until the server answers a PING, and return its process id."""
    loop = asyncio.get_running_loop()
    path = folder / "server.sock"
    deadline = loop.time() + timeout
    pause = _FIRST_PAUSE
    while True:
        if guarded.ended:
            raise ConfigError(f"the embedded server must start, but it ended: {_tail(folder)}")
        try:
            async with asyncio.timeout_at(deadline):
                pid = await _ask(path)
        except OSError:
            pid = None
        if pid:
            return pid
        if pid == 0:
            deadline = loop.time() + timeout
        if loop.time() >= deadline:
            raise StoreUnavailableError(f"start of the embedded server ({_tail(folder)})")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)


async def _ask(path: Path) -> int | None:
    """Return the server's process id; 0 while it loads its data, None for any other answer."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(b"PING\r\nINFO server\r\n")
        answer = await reader.readline()
        if answer != b"+PONG\r\n":
            return 0 if answer.startswith(b"-LOADING") else None
        while line := await reader.readline():
            if line.startswith(b"process_id:"):
                return int(line[len(b"process_id:") :])
        return None
    finally:
        writer.transport.abort()


async def _ended(guarded: GuardedProcess, seconds: float) -> None:
    """Wait for the end of the process, at most *seconds*."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    pause = _FIRST_PAUSE
    while not guarded.ended and loop.time() < deadline:
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)


def _tail(folder: Path) -> str:
    """Return the last lines of the server's log."""
    try:
        lines = (folder / "log").read_text("utf-8", "replace").strip().splitlines()
    except OSError:
        lines = []
    return " | ".join(lines[-5:]) or "its log is empty"


def _discard(
    guarded: GuardedProcess | None,
    private: PrivateDirectory | None,
    home: DataDir | None,
    owner: int,
) -> None:
    """Kill the server and remove its files, unless this is a forked child of the owner."""
    if os.getpid() != owner:
        return
    if guarded is not None:
        guarded.discard()
    if private is not None:
        private.remove()
    if home is not None:
        home.close()
