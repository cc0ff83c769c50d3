"""Real servers for tests: the embedded Valkey, and the system's Redis if there is one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import attrs
import pytest

from rxdispatch.store.embedded.server import EmbeddedServer
from rxdispatch.store.url import Target, parse_url

__all__ = [
    "NO_REDIS",
    "Certificates",
    "Kind",
    "alive",
    "any_server",
    "other_ca",
    "system_redis",
    "throwaway_ca",
    "valkey_server",
    "wait_until",
]

Kind = Literal["valkey", "redis"]

NO_REDIS = "needs redis-server"
"""Why a test of the system's Redis is skipped."""


@attrs.frozen
class Certificates:
    """Paths of an authority's certificate, and of a server's certificate and key."""

    ca: Path
    cert: Path
    key: Path


@asynccontextmanager
async def valkey_server(
    data_dir: str | os.PathLike[str] | None = None,
) -> AsyncGenerator[EmbeddedServer]:
    """Run the embedded server."""
    async with await EmbeddedServer.start(data_dir) as server:
        yield server


@asynccontextmanager
async def any_server(kind: Kind) -> AsyncGenerator[Target]:
    """Run a server of that kind; skip the test if there is none."""
    if kind == "valkey":
        async with valkey_server() as server:
            yield server.target
    else:
        with system_redis() as url:
            yield parse_url(url)


@contextmanager
def system_redis(
    *,
    password: str | None = None,
    acl: Sequence[str] = (),
    tls: Certificates | None = None,
    options: Mapping[str, str] | None = None,
) -> Generator[str]:
    """
    Run the system's ``redis-server`` on a port of 127.0.0.1; skip the test without one.

    Args:
        password: The value of ``requirepass``; the yielded URL contains it.
        acl: ``user`` lines of the configuration, such as ``"bob on >secret ~* &* +@all"``.
        tls: Makes the port speak TLS.
        options: Further settings.
    """
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip(NO_REDIS)
    with tempfile.TemporaryDirectory(prefix="rxd-test-") as folder:
        port = _free_port()
        settings = {
            "bind": "127.0.0.1",
            "port": "0" if tls else str(port),
            "dir": folder,
            "save": '""',
            "appendonly": "no",
            "daemonize": "no",
            **({"requirepass": f'"{password}"'} if password else {}),
            **(options or {}),
        }
        if tls:
            settings |= {
                "tls-port": str(port),
                "tls-ca-cert-file": str(tls.ca),
                "tls-cert-file": str(tls.cert),
                "tls-key-file": str(tls.key),
                "tls-auth-clients": "no",
                **(options or {}),
            }
        lines = [f"{name} {value}" for name, value in settings.items()]
        lines += [f"user {line}" for line in acl]
        config = Path(folder, "redis.conf")
        config.write_text("\n".join(lines) + "\n")
        with Path(folder, "log").open("wb") as log:
            process = subprocess.Popen(
                [program, str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            wait_until(lambda: _accepts(port) or process.poll() is not None)
            assert process.poll() is None, Path(folder, "log").read_text()
            login = f":{quote(password, safe='')}@" if password else ""
            yield f"{'rediss' if tls else 'redis'}://{login}127.0.0.1:{port}"
        finally:
            # Send this signal too, in case a test has stopped the server.
            process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="session")
def throwaway_ca(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority, with the certificate that it signed for 127.0.0.1 and localhost."""
    return _authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="session")
def other_ca(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Another authority, with another certificate that it signed."""
    return _authority(tmp_path_factory.mktemp("other-ca"))


def _authority(folder: Path) -> Certificates:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl")
    extensions = folder / "extensions"
    # Python 3.13 checks certificates strictly by RFC 5280, which requires all of these.
    extensions.write_text(
        "subjectAltName = IP:127.0.0.1, DNS:localhost\n"
        "authorityKeyIdentifier = keyid\n"
        "subjectKeyIdentifier = hash\n"
    )

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    run(
        *("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem"),
        *("-days", "2", "-subj", "/CN=throwaway authority"),
        *("-addext", "keyUsage = critical, keyCertSign, cRLSign"),
    )
    run("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=server")
    run(
        *("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
        *("-CAcreateserial", "-days", "2", "-extfile", "extensions", "-out", "server.pem"),
    )
    return Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Block until *condition* holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        # Either the system has no /proc, or the process ended before or after the file was opened.
        return not Path("/proc/self").exists()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
