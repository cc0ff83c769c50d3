"""A proxy between client and server that drops, holds, delays or cuts when a test says so."""

from __future__ import annotations

import asyncio
import socket
import struct
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import attrs
import hiredis

from rxdispatch.store.url import Target
from tests.gate import Gate
from tests.stream_server import StreamServer

__all__ = ["Proxy"]

_CHUNK: Final = 1 << 16
_STEP: Final = 1 << 14


class _Link:
    """A client's connection, with the proxy's own connection to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.asked = False
        self.dead = False
        # The gates that wait for the reply to the last request.
        self.gates: list[Gate] = []

    def cut(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()

    def reset(self) -> None:
        own: socket.socket = self.client.get_extra_info("socket")
        if own.fileno() >= 0:
            # With this option, closing the socket sends an RST; only TCP has one.
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.cut()


class Proxy(StreamServer):
    """
    A proxy that listens on a unix socket, or on 127.0.0.1, and forwards to a server.

    ::

        async with Proxy(server.target) as proxy:
            client = Client(proxy.target, StoreSettings())
            proxy.drop_replies(1)

    Args:
        upstream: The server, without TLS; a test may change it for later connections.
        tcp: Listen on a port instead of a unix socket.
    """

    def __init__(self, upstream: Target, *, tcp: bool = False) -> None:
        super().__init__()
        self.upstream = upstream
        self.accepted = 0
        self.dropped = 0
        self._tcp = tcp
        self._links: set[_Link] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._delay = 0.0
        self._rate = 0.0
        self._drop = 0
        self._command: bytes | None = None
        self._gates: list[Gate] = []
        self._tamper: Callable[[bytes], Iterable[bytes]] | None = None

    async def listen(self) -> asyncio.Server:
        """Listen on a port or a unix socket."""
        self._folder = tempfile.TemporaryDirectory(prefix="rxd-proxy-")
        if self._tcp:
            server = await super().listen()
            self.target = attrs.evolve(
                self.upstream, scheme="redis", host="127.0.0.1", port=self.port, path=""
            )
        else:
            path = str(Path(self._folder.name, "proxy.sock"))
            server = await asyncio.start_unix_server(self.accept, path)
            self.target = attrs.evolve(self.upstream, scheme="unix", path=path)
        return server

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        await super().__aexit__()
        self._folder.cleanup()

    def drop_replies(self, count: int, command: bytes | None = None) -> None:
        """
        Drop the next *count* replies, and cut the connection after each.

        The server has executed the requests.

        Args:
            count: How many.
            command: Drop only replies to this command, such as ``b"EVALSHA"``.
        """
        self._drop = count
        self._command = command
        for link in self._links:
            link.asked = False

    def cut(self) -> None:
        """Cut every connection; clients may connect again."""
        for link in tuple(self._links):
            link.cut()

    def reset(self) -> None:
        """Reset every connection by an RST; this needs ``tcp``."""
        for link in tuple(self._links):
            link.reset()

    def tamper(self, change: Callable[[bytes], Iterable[bytes]] | None) -> None:
        """
        Change Pub/Sub messages; None stops that.

        Args:
            change: Called with the data of each message, in order over all connections; returns
                the data of the messages to pass on instead.
        """
        self._tamper = change

    def blackhole(self) -> None:
        """Accept connections and bytes, but forward nothing until :meth:`heal`."""
        self._flowing.clear()

    def slow_down(self, rate: float) -> None:
        """Forward *rate* bytes per second, in each direction of each connection."""
        self._rate = rate

    def hold(
        self, command: bytes | None = None, *, replies: bool = False, count: int | None = 1
    ) -> Gate:
        """
        Hold the next request, or the reply to it, until the gate is opened.

        ::

            gate = proxy.hold(b"EVALSHA", replies=True)
            settling = asyncio.create_task(board.settle(outcomes))
            await gate.reached()  # the server has executed it, and the client has no reply
            gate.open()

        The arguments are those of :class:`Gate`; :meth:`heal` opens it, too.
        """
        gate = Gate(command, replies=replies, count=count)
        self._gates.append(gate)
        return gate

    def delay(self, seconds: float) -> None:
        """Delay every reply by *seconds*."""
        self._delay = seconds

    def heal(self, *, dead: bool = False) -> None:
        """
        End all disturbances, and forward the bytes that a black hole held.

        Args:
            dead: Existing connections no longer forward anything and are not cut, as behind a
                router that has forgotten them.
        """
        for link in self._links:
            link.dead = link.dead or dead
        self._drop = 0
        self._delay = self._rate = 0.0
        self._tamper = None
        self._flowing.set()
        while self._gates:
            self._gates.pop().open()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward in both directions until one side ends."""
        self.accepted += 1
        if self.upstream.scheme == "unix":
            back, forth = await asyncio.open_unix_connection(self.upstream.path)
        else:
            back, forth = await asyncio.open_connection(self.upstream.host, self.upstream.port)
        link = _Link(writer, forth)
        self._links.add(link)
        pumps = [
            asyncio.create_task(self._requests(reader, link)),
            asyncio.create_task(self._replies(back, link)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._links.discard(link)
            link.cut()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _passes(self, link: _Link) -> None:
        await self._flowing.wait()
        if link.dead:
            await asyncio.Event().wait()

    async def _requests(self, reader: asyncio.StreamReader, link: _Link) -> None:
        while data := await reader.read(_CHUNK):
            for gate in [gate for gate in self._gates if gate.wants(data)]:
                if gate.replies:
                    link.gates.append(gate)
                else:
                    await gate.hold()
            await self._passes(link)
            if self._command is None or b"\r\n" + self._command + b"\r\n" in data.upper():
                link.asked = True
            await self._write(link.server, data)

    async def _replies(self, reader: asyncio.StreamReader, link: _Link) -> None:
        parser = hiredis.Reader(notEnoughData=self)
        frames = _Frames()
        while data := await reader.read(_CHUNK):
            if self._delay:
                await asyncio.sleep(self._delay)
            while link.gates:
                gate = link.gates.pop()
                if gate.wants_reply(data):
                    await gate.hold()
            await self._passes(link)
            if self._drop and link.asked:
                parser.feed(data)
                if parser.gets() is self:
                    continue
                self._drop -= 1
                self.dropped += 1
                return
            if self._tamper is not None or frames.rest:
                data = b"".join(frames.changed(data, self._tamper))
            await self._write(link.client, data)

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        step = _STEP if self._rate else len(data)
        for at in range(0, len(data), step or 1):
            writer.write(data[at : at + step])
            await writer.drain()
            if self._rate:
                await asyncio.sleep(step / self._rate)


class _Frames:
    """Finds Pub/Sub messages in the bytes of a server."""

    def __init__(self) -> None:
        self.rest = b""

    def changed(
        self, data: bytes, change: Callable[[bytes], Iterable[bytes]] | None
    ) -> Iterable[bytes]:
        """Yield whole replies, with messages changed by *change*."""
        self.rest += data
        while (end := _end(self.rest, 0)) is not None:
            frame, self.rest = self.rest[:end], self.rest[end:]
            reader = hiredis.Reader()
            reader.feed(frame)
            match reader.gets():
                case [b"message", bytes(name), bytes(text)] if change is not None:
                    for changed in change(text):
                        yield b"*3\r\n" + b"".join(map(_bulk, (b"message", name, changed)))
                case _:
                    yield frame


def _bulk(text: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text)


def _end(data: bytes, at: int) -> int | None:
    """Return the end of the reply that begins at *at*; None if it is incomplete."""
    line = data.find(b"\r\n", at)
    if line < 0:
        return None
    kind, end = data[at : at + 1], line + 2
    size = int(data[at + 1 : line]) if kind in {b"$", b"*"} else -1
    if kind == b"$" and size >= 0:
        end += size + 2
    elif kind == b"*":
        for _ in range(size):
            found = _end(data, end)
            if found is None:
                return None
            end = found
    return end if end <= len(data) else None
