"""Private directories: for this user only, and removed later if their owner was killed."""

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

# Long and unusual, because unlocked directories with such names are removed.
_PREFIX: Final = "rxdispatch-"
_SUFFIX: Final = ".server"

# The address of a unix socket holds 104 bytes on macOS and 108 on Linux, with the final zero.
_LONGEST: Final = 103 - len(f"/{_PREFIX}12345678{_SUFFIX}/server.sock")


class PrivateDirectory:
    """
    A directory of mode 0700 with a short path, and with a lock that shows that it is in use.

    The lock is on the directory itself. So it does not depend on a file that could be removed, and
    programs that clean temporary directories (``systemd-tmpfiles``) leave the directory alone.

    Args:
        path: Its path.
        lock: The lock on it.
    """

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self.lock = lock

    @classmethod
    def create(cls) -> PrivateDirectory:
        """
        Create a directory, after removing those whose owners have ended.

        Raises:
            ConfigError: If the directory for temporary files is not safe.
            OSError: If it cannot be created.
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
            # Another process removed it between its creation and its locking.

    def remove(self) -> None:
        """Remove the directory and its files, and release the lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.lock.close()


def _sweep(parent: str) -> None:
    """Remove the directories of this user that are not locked."""
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
    """Whether it is a directory (not a link) of this user, with a name that this module gives."""
    if not (entry.name.startswith(_PREFIX) and entry.name.endswith(_SUFFIX)):
        return False
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
