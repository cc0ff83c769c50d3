"""``FileLock`` has one holder, and is free when all holders have ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rxdispatch.errors import ConfigError
from rxdispatch.files.lock import FileLock


def test_one_holder(tmp_path: Path) -> None:
    """A second caller gets None until the first holder has closed the lock."""
    path = tmp_path / "lock"
    first = FileLock.take(path)
    assert first is not None
    assert FileLock.take(path) is None
    first.close()
    first.close()
    second = FileLock.take(path)
    assert second is not None
    second.close()


def test_a_child_that_was_given_it_holds_it(tmp_path: Path) -> None:
    """The lock is free once that child has ended."""
    path = tmp_path / "lock"
    lock = FileLock.take(path)
    assert lock is not None
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock.fd]
    )
    lock.close()
    assert FileLock.take(path) is None
    child.communicate(b"\n")
    free = FileLock.take(path)
    assert free is not None
    free.close()


def test_a_forked_child_does_not_hold_it(tmp_path: Path) -> None:
    """The lock is free after its holder has ended, even if a forked child lives on."""
    path = tmp_path / "lock"
    lock = FileLock.take(path)
    assert lock is not None
    forked, say = os.pipe()
    wait, stop = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(stop)
        os.write(say, b"1")
        os.read(wait, 1)
        os._exit(0)
    os.read(forked, 1)
    lock.close()
    free = FileLock.take(path)
    assert free is not None
    free.close()
    for fd in (forked, say, wait, stop):
        os.close(fd)
    os.waitpid(child, 0)


def test_a_link_is_refused(tmp_path: Path) -> None:
    """A link is refused, as another user may have planted it."""
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="the lock file must not be a symbolic link"):
        FileLock.take(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()


def test_it_tells_who_took_it(tmp_path: Path) -> None:
    """The lock file has the process id of the holder; other contents are ignored."""
    path = tmp_path / "lock"
    assert FileLock.holder(path) is None
    lock = FileLock.take(path)
    assert lock is not None
    assert os.getpid() == FileLock.holder(path)
    path.write_text("not a number, and quite long " * 9)
    assert FileLock.holder(path) is None
    lock.close()
