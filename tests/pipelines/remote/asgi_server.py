"""A minimal HTTP/1.1 server that runs an ASGI app on a real socket."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.stream_server import StreamServer

__all__ = ["AsgiServer"]


class AsgiServer(StreamServer):
    """
    Serves one request at a time on each connection; Content-Length limits its body.

    Args:
        app: The app to serve.
    """

    def __init__(self, app: Any) -> None:
        super().__init__()
        self._app = app
        self.requests: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests until one asks to close the connection."""
        while await self._request(reader, writer):
            pass

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split()
        headers = {k.lower(): v.strip() for k, _, v in (x.partition(":") for x in head[1:] if x)}
        self.requests.append(headers)
        left = [int(headers.get("content-length", 0))]
        closing: list[bool] = []

        async def receive() -> dict[str, Any]:
            if left:
                # Send the body in two parts if it is long enough.
                size = left.pop()
                part = size if size < 100 else size // 2
                if size > part:
                    left.append(size - part)
                body = await reader.readexactly(part)
                return {"type": "http.request", "body": body, "more_body": bool(left)}
            if not await reader.read(1):
                return {"type": "http.disconnect"}
            raise AssertionError("requests must not be pipelined")

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                writer.write(f"HTTP/1.1 {message['status']} Told\r\n".encode())
                for key, value in message["headers"]:
                    writer.write(key + b": " + value + b"\r\n")
                    if key == b"connection":
                        closing.append(True)
                writer.write(b"\r\n")
            else:
                writer.write(message["body"])
                await writer.drain()

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
        }
        await self._app(scope, receive, send)
        if left:
            # Read the rest of the body, which the app did not want.
            await reader.readexactly(left.pop())
        return not closing
