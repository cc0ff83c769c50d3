"""A minimal HTTP/1.1 server that runs an ASGI app on a real socket."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

__all__ = ["AsgiServer"]


class AsgiServer:
    """
    Serves one request at a time on each connection; Content-Length limits its body.

    Args:
        app: The app to serve.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests: list[dict[str, str]] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._request(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

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
