"""Files that another user can write, or may have planted, are refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from rxdispatch.errors import ConfigError
from rxdispatch.files.private_file import open_private, open_private_folder, writable_by_others
from tests.strangers import STRANGER, as_user, shared_folder

CREATE = os.O_RDWR | os.O_CREAT


def opened(path: Path) -> os.stat_result:
    """Return what ``fstat`` reports of a file that could be opened."""
    fd = open_private(path, CREATE, what="thing")
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def test_a_new_file_is_the_owners_alone(tmp_path: Path) -> None:
    """The file has mode 0600, and child processes do not inherit its descriptor."""
    fd = open_private(tmp_path / "new", CREATE, what="thing")
    assert 0o600 == stat.S_IMODE(os.fstat(fd).st_mode)
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_a_link_is_refused(tmp_path: Path) -> None:
    """A link is refused, and no file is created at its target."""
    path = tmp_path / "link"
    path.symlink_to(tmp_path / "target")
    with pytest.raises(ConfigError, match=r"thing must not be a symbolic link, got '.*/link'"):
        opened(path)
    assert not (tmp_path / "target").exists()


def test_a_hard_link_is_refused(tmp_path: Path) -> None:
    """A hard link is refused, as the file may have another name too."""
    (tmp_path / "one").touch(0o600)
    os.link(tmp_path / "one", tmp_path / "two")
    with pytest.raises(ConfigError, match="thing must have one name, not 2"):
        opened(tmp_path / "two")


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    """The open does not wait for the other end of the pipe."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigError, match="thing must be a regular file"):
        open_private(tmp_path / "pipe", os.O_WRONLY, what="thing")


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    """A folder is refused as a file, and a file as a folder."""
    with pytest.raises(ConfigError, match="thing must be a regular file"):
        opened(tmp_path)
    (tmp_path / "file").touch(0o600)
    with pytest.raises(ConfigError, match="thing must be a directory"):
        open_private_folder(tmp_path / "file", what="thing")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="thing must not be a symbolic link"):
        open_private_folder(tmp_path / "link", what="thing")


@pytest.mark.parametrize("mode", [0o602, 0o666, 0o660])
def test_a_file_that_others_can_write(tmp_path: Path, mode: int) -> None:
    """The error says what to do."""
    path = tmp_path / "file"
    path.touch()
    os.chown(path, -1, os.getegid())
    path.chmod(mode)
    if mode == 0o660 and os.getuid() == os.getgid() != 0:
        assert opened(path)
        return
    with pytest.raises(ConfigError, match=r"thing must be writable by its owner only \(chmod go-w"):
        opened(path)


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "expected"),
    [
        (0o664, 1000, 1000, False),
        (0o664, 1000, 100, True),
        (0o664, 0, 0, True),
        (0o646, 1000, 1000, True),
        (0o644, 1000, 100, False),
    ],
)
def test_the_group_of_a_user_is_nobody_else(mode: int, uid: int, gid: int, expected: bool) -> None:
    """The user's own group counts as the user, as distributions with such groups use umask 002."""
    found = os.stat_result((stat.S_IFREG | mode, 1, 1, 1, uid, gid, 0, 0, 0, 0))
    assert expected == writable_by_others(found)


def test_a_file_of_another_user() -> None:
    """The error names both users, even if the file cannot be read."""
    with shared_folder() as folder:
        planted = folder / "planted"
        assert 0 == as_user(lambda: planted.touch(0o644))
        rule = (
            rf"thing must belong to the user of this process, root \(uid 0\), not to uid {STRANGER}"
        )
        with pytest.raises(ConfigError, match=rule):
            opened(planted)
        own = folder / "own"
        own.touch(0o600)

        def read() -> None:
            with pytest.raises(ConfigError, match=r"not to root \(uid 0\), got '/"):
                opened(own)

        assert 0 == as_user(read)
