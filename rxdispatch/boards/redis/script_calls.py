"""``ScriptCalls``: runs the scripts of one board for one handle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.exceptions import ResponseError

from rxdispatch.boards.engine import Options
from rxdispatch.boards.redis.keys import BoardKeys
from rxdispatch.boards.redis.session import Request, RequestSession
from rxdispatch.errors import BoardFullError, ConfigError, StoreUnavailableError
from rxdispatch.store.client import Client
from rxdispatch.store.fence import Fence
from rxdispatch.store.refusal import state_of
from rxdispatch.store.scripts import Script

__all__ = ["FORMAT", "ScriptCalls"]

FORMAT: Final = "1"
"""The number of the stored format; the scripts refuse another."""

Value = bytes | str | int


class ScriptCalls:
    """
    Gives the scripts their keys, options and request numbers, and turns errors into ours.

    Args:
        client: The client of the server.
        keys: The names of the board's keys.
        board: The board's name.
        options: The options that this handle gives.

    Attributes:
        fence: What this handle knows about the server that answers it.
        session: Numbers the requests that must not be executed twice.
    """

    def __init__(self, client: Client, keys: BoardKeys, board: str, options: Options) -> None:
        self.fence = Fence(f"board {board!r}")
        self.session = RequestSession(client, keys)
        self._client = client
        self._keys = keys
        self._board = board
        self._options = options
        self._head: tuple[bytes | str, ...] = (
            keys.events,
            keys.joined,
            *("" if value is None else repr(value) for value in options),
        )
        self._key_names: dict[Script, tuple[bytes, ...]] = {}

    async def run(
        self,
        operation: str,
        script: Script,
        args: Sequence[Value],
        on_written: Callable[[], None] | None = None,
    ) -> Any:
        """Run a script that may be executed twice."""
        keys = self._key_names.get(script)
        if keys is None:
            keys = self._key_names[script] = tuple(
                self.session.key if name == "session" else self._keys.key(name)
                for name in script.keys
            )
        try:
            head_and_args = (*self._head, *args)
            return await self._client.run(
                operation, script, keys, head_and_args, self.fence, on_written=on_written
            )
        except ResponseError as error:
            raise self._refused(operation, error) from error

    async def once(
        self, operation: str, script: Script, args: Sequence[Value], request: Request
    ) -> Any:
        """Run a script as *request*, whose slot the caller keeps or frees."""
        reply = await self.run(operation, script, (*request.args, *args))
        self.session.answered(request)
        return reply

    async def run_once(self, operation: str, script: Script, args: Sequence[Value]) -> Any:
        """Run a script that must not be executed twice."""
        request = self.session.begin()
        try:
            return await self.once(operation, script, args, request)
        finally:
            self.session.end(request)

    def _refused(self, operation: str, error: ResponseError) -> Exception:
        text = str(error)
        if text.startswith("CONFLICT "):
            _, name, stored = text.split(" ")[:3]
            given = getattr(self._options, name)
            return ConfigError(
                f"{name} must be {stored}, as stored with board {self._board!r}", given
            )
        if text.startswith("FORMAT "):
            rule = f"the stored format of board {self._board!r} must be {FORMAT}"
            return ConfigError(f"{rule} for this version of rxdispatch", text.split(" ")[1])
        state = state_of(error)
        if state == "OOM":
            return BoardFullError(self._board, why="the server is at its maxmemory")
        if state is not None:
            # The server wrote nothing. The call may succeed when the server has recovered.
            return StoreUnavailableError(operation, state=state)
        return error
