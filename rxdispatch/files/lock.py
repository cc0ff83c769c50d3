"""``FileLock``: a lock on a file or directory that its holders cannot leave behind."""

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
    An exclusive ``flock`` on a file or directory, held until closed.

    The kernel ties it to the open file, not to a process: a child that was started with the
    descriptor in ``pass_fds`` holds it as well, and it is free once all of them are gone. A
    process that was merely forked (a worker of a process pool, say) must not hold it, as it
    may outlive its parent by far; so the descriptor is closed in forked children.

    Args:
        fd: The descriptor, with the lock on it.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        _held.add(self)

    @classmethod
    def take(
        cls, path: Path, *, directory: bool = False, dir_fd: int | None = None
    ) -> FileLock | None:
        """
        Lock what is at *path*; None when another process holds it.

        A locked file tells which process took it: see :meth:`holder`.

        Args:
            path: A file, which is made where there is none, or a directory.
            directory: Which of the two.
            dir_fd: The folder that it is in, which is used in place of the one that *path* names.

        Raises:
            ConfigError: If it can be another user's work, or is a symbolic link.
            OSError: If it cannot be opened.
        """
        if directory:
            fd = open_private_folder(path, what="a folder to lock", dir_fd=dir_fd)
        else:
            flags = os.O_RDWR | os.O_CREAT
            fd = open_private(path, flags, what="the lock file", dir_fd=dir_fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it before may have removed it meanwhile: then this lock is on
            # something without a name, and a second owner could lock a new one of that name.
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
        Return the process that took the lock file last; None where that cannot be known.

        It is a hint for people: the process may have ended, and a child of it hold the lock.
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
        """Let go; a child that was given the descriptor still holds on."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            _held.discard(self)
            os.close(fd)


def _sign(fd: int) -> None:
    """Write this process's number into a lock file; a full disk does not matter."""
    with suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode("ascii"), 0)


_held = WeakSet()


def _close_in_child() -> None:
    for lock in tuple(_held):
        lock.close()


os.register_at_fork(after_in_child=_close_in_child)
