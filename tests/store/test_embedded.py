"""The embedded server is private, quick, durable on request, and ends with its owner."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError

from rxdispatch.config import StoreSettings
from rxdispatch.errors import ConfigError, StoreUnavailableError
from rxdispatch.store.client import Client
from rxdispatch.store.embedded import data_dir
from rxdispatch.store.embedded.guarded_process import Guard
from rxdispatch.store.embedded.server import EmbeddedServer
from rxdispatch.store.url import Target
from tests.servers import alive, valkey_server, wait_until

GUARDS: list[Guard] = ["pipe"] if sys.platform != "linux" else ["kernel", "pipe"]

OWNER = """\
import asyncio, sys
from rxdispatch.store.embedded.server import EmbeddedServer

async def main():
    server = await EmbeddedServer.start(sys.argv[1] or None, _guard=sys.argv[2])
    print(server.pid, server.socket_path, flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """A separate place for private directories, in which leftovers are visible."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@contextmanager
def owner(data_dir: Path | None, guard: Guard) -> Generator[tuple[subprocess.Popen[str], int]]:
    """Yield a process that owns a server, and the pid of the server."""
    command = [sys.executable, "-c", OWNER, str(data_dir or ""), guard]
    path = os.pathsep.join(filter(None, sys.path))
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline().split()[0])
        finally:
            process.kill()


@asynccontextmanager
async def connection(path: Path) -> AsyncGenerator[Client]:
    """Yield a client of the server behind a socket."""
    client = Client(Target(scheme="unix", path=str(path)), StoreSettings())
    try:
        yield client
    finally:
        await client.close()


async def call(server: EmbeddedServer, *command: str) -> Any:
    """Send one command over a new connection."""
    async with connection(Path(server.socket_path)) as client:
        return await client.call("test", *command)


async def config(server: EmbeddedServer, name: str) -> str:
    """Return a setting of the server."""
    _, value = await call(server, "CONFIG", "GET", name)
    return str(value, "utf-8")


@pytest.mark.parametrize("guard", GUARDS)
async def test_it_runs_and_leaves_nothing(temporary: Path, guard: Guard) -> None:
    """The server has a private socket and no port; after a stop no process or directory is left."""
    server = await EmbeddedServer.start(_guard=guard)
    folder = Path(server.socket_path).parent
    assert temporary == folder.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(Path(server.socket_path).stat().st_mode) == 0o700
    assert await config(server, "port") == "0"
    assert await config(server, "save") == ""
    assert await config(server, "appendonly") == "no"
    assert await config(server, "maxmemory-policy") == "noeviction"
    assert f"pid={server.pid} unix://{server.socket_path}" in repr(server)
    assert alive(server.pid)
    await server.stop()
    await server.stop()
    assert not alive(server.pid)
    assert [] == list(temporary.iterdir())


@pytest.mark.parametrize("guard", GUARDS)
async def test_it_is_closed_to_what_nobody_needs(
    monkeypatch: pytest.MonkeyPatch, guard: Guard
) -> None:
    """The server has no modules, no debugging, and no variables of its owner except a few."""
    monkeypatch.setenv("API_KEY", "PLANTED-SECRET")
    async with await EmbeddedServer.start(_guard=guard) as server:
        assert await config(server, "protected-mode") == "yes"
        for name in ("enable-module-command", "enable-debug-command"):
            assert await config(server, name) == "no"
        for command in (("MODULE", "LOAD", "/x.so"), ("DEBUG", "JMAP")):
            with pytest.raises(ResponseError, match="not allowed"):
                await call(server, *command)
        if sys.platform == "linux":
            environment = Path(f"/proc/{server.pid}/environ").read_bytes().split(b"\0")
            names = {entry.partition(b"=")[0] for entry in environment if entry}
            assert names <= {b"PATH", b"LANG", b"LC_ALL", b"LC_CTYPE", b"TZ", b"LD_LIBRARY_PATH"}


@pytest.mark.serial
async def test_it_starts_within_half_a_second() -> None:
    """The best of a few starts counts, as the machine may be busy."""
    best = float("inf")
    for _ in range(3):
        before = time.perf_counter()
        async with valkey_server():
            best = min(best, time.perf_counter() - before)
    assert best < 0.5


@pytest.mark.parametrize("guard", GUARDS)
async def test_data_is_kept(tmp_path: Path, guard: Guard) -> None:
    """Data survives a stop, in a directory that the server creates."""
    home = tmp_path / ("deep " * 30) / "data ü"
    for expected in (1, 2):
        server = await EmbeddedServer.start(home, _guard=guard)
        assert await config(server, "appendonly") == "yes"
        assert await config(server, "appendfsync") == "no"
        assert expected == await call(server, "INCR", "n")
        await server.stop()
        assert not alive(server.pid)


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("kept", [False, True])
async def test_it_dies_with_its_owner(
    temporary: Path, tmp_path: Path, guard: Guard, kept: bool
) -> None:
    """SIGKILL of the owner ends the server; data survives, and the next start cleans up."""
    home = tmp_path / "data" if kept else None
    with owner(home, guard) as (process, pid):
        stale = list(temporary.iterdir())
        assert len(stale) == 1
        if home is not None:
            async with connection(stale[0] / "server.sock") as client:
                await client.call("write", "SET", "n", "41")
        process.send_signal(signal.SIGKILL)
        process.wait()
        # The next server starts at once, while the old one may still be ending.
        server = await EmbeddedServer.start(home)
    try:
        if kept:
            assert await call(server, "INCR", "n") == 42
        wait_until(lambda: not alive(pid))
    finally:
        await server.stop()
    async with valkey_server():
        assert stale[0] not in temporary.iterdir()


@pytest.mark.parametrize("guard", GUARDS)
async def test_a_stopped_server_dies_with_its_owner(temporary: Path, guard: Guard) -> None:
    """A server that cannot react to SIGTERM is killed."""
    with owner(None, guard) as (process, pid):
        os.kill(pid, signal.SIGSTOP)
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until(lambda: not alive(pid))


@pytest.mark.parametrize("guard", GUARDS)
async def test_a_forked_child_does_not_keep_it_alive(temporary: Path, guard: Guard) -> None:
    """The server ends with its owner, even if a worker of a process pool outlives it."""
    script = OWNER.replace(
        "    print(",
        "    import os\n    if os.fork() == 0:\n        import time; time.sleep(3600)\n    print(",
    )
    command = [sys.executable, "-c", script, "", guard]
    path = os.pathsep.join(filter(None, sys.path))
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        pid = int(process.stdout.readline().split()[0])
        process.kill()
        process.wait()
        wait_until(lambda: not alive(pid))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()


async def test_one_owner_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of the second owner names the directory."""
    monkeypatch.setattr(data_dir, "_LOCK_WAIT", 0.1)
    async with valkey_server(tmp_path):
        with pytest.raises(ConfigError, match="one owner at a time") as caught:
            await EmbeddedServer.start(tmp_path)
        assert str(tmp_path) in str(caught.value)
    async with valkey_server(tmp_path):
        pass


async def test_several_in_one_process(temporary: Path) -> None:
    """Servers of one process are independent."""
    servers = await asyncio.gather(*(EmbeddedServer.start() for _ in range(3)))
    assert [1, 1, 1] == [await call(server, "INCR", "n") for server in servers]
    await asyncio.gather(*(server.stop() for server in servers))
    assert [] == list(temporary.iterdir())


async def test_it_does_not_hear_ctrl_c() -> None:
    """The server runs in a session of its own, so Ctrl-C does not reach it."""
    async with valkey_server() as server:
        assert os.getsid(server.pid) != os.getsid(0)


async def test_a_cancelled_start_leaves_nothing(temporary: Path) -> None:
    """A start that is cancelled at any moment leaves nothing behind."""
    for rounds in range(0, 24, 3):
        task = asyncio.create_task(EmbeddedServer.start())
        for _ in range(rounds):
            await asyncio.sleep(0.001)
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(result, EmbeddedServer):
            await result.stop()
        assert [] == list(temporary.iterdir())


async def test_a_cancelled_stop_leaves_nothing(temporary: Path, tmp_path: Path) -> None:
    """The server is killed at once, and acknowledged data survives."""
    server = await EmbeddedServer.start(tmp_path)
    assert await call(server, "INCR", "n") == 1
    os.kill(server.pid, signal.SIGSTOP)
    task = asyncio.create_task(server.stop())
    other = asyncio.create_task(server.stop())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, other, return_exceptions=True)
    assert task.cancelled()
    assert not alive(server.pid)
    assert [] == list(temporary.iterdir())
    async with valkey_server(tmp_path) as again:
        assert await call(again, "INCR", "n") == 2


async def test_a_server_that_died_can_be_stopped(temporary: Path) -> None:
    """Stopping only has to remove the directory."""
    async with valkey_server() as server:
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not alive(server.pid))
    assert [] == list(temporary.iterdir())


async def test_dropping_it_ends_it(temporary: Path) -> None:
    """A server that is not stopped ends with the last reference to it."""
    server = await EmbeddedServer.start()
    pid = server.pid
    del server
    assert not alive(pid)
    assert [] == list(temporary.iterdir())


async def test_a_data_dir_that_cannot_be_used(tmp_path: Path) -> None:
    """The error names the directory."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="data_dir must be a directory") as caught:
        await EmbeddedServer.start(tmp_path / "file")
    assert str(tmp_path / "file") in str(caught.value)


async def test_a_server_that_refuses_to_start(tmp_path: Path, temporary: Path) -> None:
    """The error quotes the end of the server's log."""
    log = tmp_path / "appendonlydir"
    log.mkdir()
    (log / "appendonly.aof.manifest").write_text("this is not a manifest\n")
    with pytest.raises(ConfigError, match=r"it ended: .*manifest"):
        await EmbeddedServer.start(tmp_path)
    assert [] == list(temporary.iterdir())


async def test_a_server_that_is_too_slow(temporary: Path) -> None:
    """The server is ended."""
    with pytest.raises(StoreUnavailableError, match="start of the embedded server"):
        await EmbeddedServer.start(timeout=0.0)
    assert [] == list(temporary.iterdir())
