"""``FileLock``: a lock on a file or directory that its holders cannot leave behind."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from weakref import WeakSet

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
    def take(cls, path: Path, *, directory: bool = False) -> FileLock | None:
        """
        Lock what is at *path*; None when somebody else holds it.

        Args:
            path: A file, which is made where there is none, or a directory.
            directory: Which of the two.

        Raises:
            OSError: If it cannot be opened, or is a symbolic link.
        """
        kind = os.O_RDONLY | os.O_DIRECTORY if directory else os.O_RDWR | os.O_CREAT
        fd = os.open(path, kind | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it before may have removed it meanwhile: then this lock is on
            # something without a name, and a second owner could lock a new one of that name.
            found, named = os.fstat(fd), path.stat()
            if (found.st_dev, found.st_ino) == (named.st_dev, named.st_ino):
                return cls(fd)
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def close(self) -> None:
        """Let go; a child that was given the descriptor still holds on."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            _held.discard(self)
            os.close(fd)


_held = WeakSet()


def _close_in_child() -> None:
    for lock in tuple(_held):
        lock.close()


os.register_at_fork(after_in_child=_close_in_child)
