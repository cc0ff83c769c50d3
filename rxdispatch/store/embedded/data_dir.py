"""
``DataDir``: the data folder of an embedded server, opened and locked.

A server executes the commands in its append-only file without a password, and such a command may
load a module, which is native code. So the folder must be as trustworthy as a program: the folder,
and every file that the server reads from it, must belong to this user and be writable by this user
only. The folder is opened once, checked through its descriptor, and passed to the server as a
descriptor, so a folder that replaces it in the meantime is never used.
"""

from __future__ import annotations

import asyncio
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from rxdispatch.errors import ConfigError
from rxdispatch.files.lock import FileLock
from rxdispatch.files.private_file import check_private, open_private_folder

__all__ = ["DataDir", "make_private_folder"]

_LOCK: Final = "rxdispatch.lock"
_LOG: Final = "appendonlydir"
_FILES: Final = ("appendonly.aof", "dump.rdb")

# The server of a killed owner may still be ending when the next owner starts.
_LOCK_WAIT: Final = 2.0
_LOCK_PAUSE: Final = 0.02


def make_private_folder(path: Path, *, what: str) -> int:
    """
    Open a folder, creating it if it does not exist, and return its descriptor.

    Args:
        path: The folder; missing parents are created too.
        what: Its name in errors.

    Raises:
        ConfigError: If it cannot be written, or another user may have made it or can write it.
    """
    rule = f"{what} must be a directory that can be written"
    fd = -1
    try:
        with suppress(FileExistsError):
            path.mkdir(mode=0o700, parents=True)
        fd = open_private_folder(path, what=what)
    except OSError as error:
        raise ConfigError(f"{rule} ({error.strerror})", str(path)) from error
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        os.close(fd)
        raise ConfigError(rule, str(path))
    return fd


class DataDir:
    """
    A locked folder with one owner at a time, and without files that another user may have made.

    Args:
        path: Its absolute path.
        fd: The descriptor of the folder.
        lock: The lock on it.
    """

    def __init__(self, path: Path, fd: int, lock: FileLock) -> None:
        self.path = path
        self.fd = fd
        self.lock = lock

    @classmethod
    async def open(cls, data_dir: str | os.PathLike[str]) -> Self:
        """
        Open the folder, creating it if it does not exist, lock it, and check its files.

        It waits up to 2 s for a server that is ending.

        Raises:
            ConfigError: If it cannot be used, has another owner, or holds a file that another
                user may have made.
        """
        path = _absolute(data_dir)
        fd = make_private_folder(path, what="data_dir")
        lock: FileLock | None = None
        try:
            lock = await _locked(path, fd)
            _look(path, fd)
            return cls(path, fd, lock)
        except BaseException:
            if lock is not None:
                lock.close()
            os.close(fd)
            raise

    def close(self) -> None:
        """Close and unlock the folder; a second call does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
        self.lock.close()


def _absolute(path: str | os.PathLike[str]) -> Path:
    # Links are not followed: the last part of the path must not be a link.
    return Path(path).absolute()


async def _locked(path: Path, fd: int) -> FileLock:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _LOCK_WAIT
    while True:
        try:
            lock = FileLock.take(path / _LOCK, dir_fd=fd)
        except OSError as error:
            rule = "data_dir must be a directory that can be locked"
            raise ConfigError(rule, str(path)) from error
        if lock is not None:
            return lock
        if loop.time() >= deadline:
            holder = FileLock.holder(path / _LOCK, dir_fd=fd)
            by = "" if holder is None else f"; process {holder} has it"
            raise ConfigError(f"data_dir must be used by one owner at a time{by}", str(path))
        await asyncio.sleep(_LOCK_PAUSE)


def _look(path: Path, fd: int) -> None:
    """Check every file that a server reads from the folder."""
    what = "an entry of data_dir"
    for name in _FILES:
        with suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            check_private(found, path / name, what=what, links=True)
    try:
        log = open_private_folder(path / _LOG, what=what, dir_fd=fd)
    except FileNotFoundError:
        return
    try:
        with os.scandir(log) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                # Backup programs make hard links to these files, perhaps in a folder in here.
                folder = stat.S_ISDIR(found.st_mode)
                place = path / _LOG / entry.name
                check_private(found, place, what=what, directory=folder, links=True)
    finally:
        os.close(log)
