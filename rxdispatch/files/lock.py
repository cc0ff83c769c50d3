"""``FileLock``: a lock on a file or directory that ends with its holders."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

from rxdispatch.errors import ConfigError
from rxdispatch.files.private_file import open_private, open_private_folder

__all__ = ["FileLock"]

_held: WeakSet[FileLock]


class FileLock:
    """
    An exclusive ``flock`` on a file or directory, held until it is closed.

    The kernel ties it to the open file, not to a process: a child that was started with the
    descriptor in ``pass_fds`` holds it too, and it is free once all of them have ended. A process
    that was only forked (such as a worker of a process pool) must not hold it, because it may live
    much longer than its parent; so forked children close the descriptor.

    Args:
        fd: The locked descriptor.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        _held.add(self)

    @classmethod
    def take(
        cls, path: Path, *, directory: bool = False, dir_fd: int | None = None
    ) -> FileLock | None:
        """
        Lock the file or directory at *path*; None if another process holds the lock.

        A locked file contains the id of the process that locked it: see :meth:`holder`.

        Args:
            path: A file, which is created if it does not exist, or a directory.
            directory: Whether it is a directory.
            dir_fd: The descriptor of its folder, used instead of the folder in *path*.

        Raises:
            ConfigError: If another user may have made it, or it is a symbolic link.
            OSError: If it cannot be opened.
        """
        if directory:
            fd = open_private_folder(path, what="a folder to lock", dir_fd=dir_fd)
        else:
            flags = os.O_RDWR | os.O_CREAT
            fd = open_private(path, flags, what="the lock file", dir_fd=dir_fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder may have removed the file by now. Then this lock is on a file
            # without a name, and a second owner could lock a new file of that name.
            name = path if dir_fd is None else path.name
            found, named = os.fstat(fd), os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
            if (found.st_dev, found.st_ino) == (named.st_dev, named.st_ino):
                if not directory:
                    _sign(fd)
                return cls(fd)
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    @staticmethod
    def holder(path: Path, *, dir_fd: int | None = None) -> int | None:
        """
        Return the id of the process that last locked the file; None if unknown.

        It is only a hint for people: the process may have ended while a child still holds the lock.
        """
        try:
            fd = open_private(path, os.O_RDONLY, what="the lock file", dir_fd=dir_fd)
        except (OSError, ConfigError):
            return None
        try:
            text = os.pread(fd, 32, 0).strip()
        finally:
            os.close(fd)
        return int(text) if text.isdigit() else None

    def close(self) -> None:
        """Release the lock; a child with the descriptor still holds it."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            _held.discard(self)
            os.close(fd)


def _sign(fd: int) -> None:
    """Write the id of this process into a lock file; ignore a full disk."""
    with suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode("ascii"), 0)


_held = WeakSet()


def _close_in_child() -> None:
    for lock in tuple(_held):
        lock.close()


os.register_at_fork(after_in_child=_close_in_child)
