"""Private directories: for this user only, and removed also when their owner was killed."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Final

from rxdispatch.errors import ConfigError
from rxdispatch.files.lock import FileLock
from rxdispatch.files.temporary import temporary_folder

__all__ = ["PrivateDirectory"]

# Long and odd, as whatever is called so and is not locked will be removed.
_PREFIX: Final = "rxdispatch-"
_SUFFIX: Final = ".server"

# The address of a unix socket holds 104 bytes on macOS and 108 on Linux, its end included.
_LONGEST: Final = 103 - len(f"/{_PREFIX}12345678{_SUFFIX}/server.sock")


class PrivateDirectory:
    """
    A directory of mode 0700 with a short path and a lock that tells that it is in use.

    The lock is on the directory itself: so it cannot be lost with a file, and what tidies up
    directories for temporary files (``systemd-tmpfiles``) leaves it alone.

    Args:
        path: Where it is.
        lock: The lock on it.
    """

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self.lock = lock

    @classmethod
    def create(cls) -> PrivateDirectory:
        """
        Make one, after removing those whose owners are gone.

        Raises:
            ConfigError: If the directory for temporary files is not safe.
            OSError: If there is no place for it.
        """
        parent = temporary_folder(_LONGEST)
        _sweep(parent)
        while True:
            path = Path(tempfile.mkdtemp(_SUFFIX, _PREFIX, parent))
            try:
                lock = FileLock.take(path, directory=True)
            except FileNotFoundError:
                continue
            if lock is not None:
                return cls(path, lock)
            # Somebody swept it between its making and its locking.

    def remove(self) -> None:
        """Remove it and what is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.lock.close()


def _sweep(parent: str) -> None:
    """Remove the directories of this user that nobody holds the lock of."""
    try:
        with os.scandir(parent) as entries:
            mine = [Path(entry.path) for entry in entries if _is_mine(entry)]
    except OSError:
        return
    for path in mine:
        try:
            lock = FileLock.take(path, directory=True)
        except (OSError, ConfigError):
            continue
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            lock.close()


def _is_mine(entry: os.DirEntry[str]) -> bool:
    """Whether it is a directory, not a link to one, of this user and with a name of ours."""
    if not (entry.name.startswith(_PREFIX) and entry.name.endswith(_SUFFIX)):
        return False
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
