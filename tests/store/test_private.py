"""Private directories are short, closed to others, and removed after their owner has ended."""

from __future__ import annotations

import ctypes
import os
import stat
import tempfile
import threading
from pathlib import Path

import pytest

from rxdispatch.errors import ConfigError
from rxdispatch.files import temporary
from rxdispatch.files.private import PrivateDirectory
from tests.strangers import as_user, shared_folder


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A separate directory for temporary files, short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_it_is_private_and_short(parent: Path) -> None:
    """The directory has mode 0700, and the address of a socket in it fits."""
    private = PrivateDirectory.create()
    assert parent == private.path.parent
    assert stat.S_IMODE(private.path.stat().st_mode) == 0o700
    assert len(os.fsencode(private.path / "server.sock")) < 104
    private.remove()
    assert [] == list(parent.iterdir())


def test_a_deep_place_is_not_used(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deep place is not used, as the address of a socket in it would not fit."""
    deep = parent / ("x" * 90)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    private = PrivateDirectory.create()
    assert Path("/tmp") == private.path.parent
    private.remove()


def test_stale_ones_are_swept(parent: Path) -> None:
    """Unlocked directories are removed; locked ones, and those of other users, stay."""
    stale, used = PrivateDirectory.create(), PrivateDirectory.create()
    (stale.path / "server.sock").touch()
    stale.lock.close()
    other, target = parent / "unrelated", parent / "target"
    other.mkdir()
    target.mkdir()
    (parent / "rxdispatch-link.server").symlink_to(target)
    private = PrivateDirectory.create()
    left = {path.name for path in parent.iterdir()}
    expected = {used.path.name, private.path.name, "unrelated", "target", "rxdispatch-link.server"}
    assert expected == left
    used.remove()
    private.remove()


def test_many_makers_at_once(parent: Path) -> None:
    """No process removes a directory that another one has just created."""
    made: list[PrivateDirectory] = []
    errors: list[BaseException] = []

    def make() -> None:
        try:
            made.extend(PrivateDirectory.create() for _ in range(20))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == errors
    assert {private.path for private in made} == set(parent.iterdir())
    for private in made:
        private.remove()


def test_a_place_where_others_exchange_things(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A place that others can write is not used, nor one below it, unless it is sticky."""
    parent.chmod(0o777)
    (parent / "below").mkdir(0o700)
    for given in (parent, parent / "below"):
        monkeypatch.setattr(tempfile, "tempdir", str(given))
        private = PrivateDirectory.create()
        assert Path("/tmp") == private.path.parent
        private.remove()
    parent.chmod(0o1777)
    for given in (parent, parent / "below"):
        monkeypatch.setattr(tempfile, "tempdir", str(given))
        private = PrivateDirectory.create()
        assert given == private.path.parent
        private.remove()


def test_a_place_of_another_user(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's place is refused, as its owner can replace the files in it."""
    with shared_folder(0o1777) as folder:
        assert 0 == as_user((folder / "theirs").mkdir)
        (folder / "theirs").chmod(0o1777)
        monkeypatch.setattr(tempfile, "tempdir", str(folder / "theirs"))
        private = PrivateDirectory.create()
        assert Path("/tmp") == private.path.parent
        private.remove()


def test_no_safe_place(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error states the rule and the place."""

    def unsafe(_: str) -> bool:
        return False

    monkeypatch.setattr(temporary, "_safe", unsafe)
    with pytest.raises(ConfigError, match="be sticky or writable by its owner only") as caught:
        PrivateDirectory.create()
    assert str(parent) == caught.value.value


def test_in_a_sandbox_without_root() -> None:
    """A directory can be made although the system's own seem to belong to the overflow user."""

    def alone() -> None:
        uid, libc = os.geteuid(), ctypes.CDLL(None)
        # Otherwise the files in /proc belong to root, as this process has changed its user.
        libc.prctl(4, 1, 0, 0, 0)
        if libc.unshare(0x10000000) != 0:
            os._exit(77)
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        assert uid != Path("/").stat().st_uid != 0
        tempfile.tempdir = "/tmp"
        private = PrivateDirectory.create()
        private.remove()

    status = as_user(alone)
    if status == 77:
        pytest.skip("needs user namespaces")
    assert 0 == status
