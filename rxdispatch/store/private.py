"""Private directories: for this user only, and removed also when their owner was killed."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Final

from rxdispatch.errors import ConfigError
from rxdispatch.store.lock import FileLock
from rxdispatch.store.private_file import writable_by_others

__all__ = ["PrivateDirectory"]

# Long and odd, as whatever is called so and is not locked will be removed.
_PREFIX: Final = "rxdispatch-"
_SUFFIX: Final = ".server"

_OVERFLOW: Final = Path("/proc/sys/kernel/overflowuid")
_MAP: Final = Path("/proc/self/uid_map")

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
        parent = _parent()
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


def _parent() -> str:
    """
    The directory for temporary files, or ``/tmp`` where that is too deep for a socket or not safe.

    Another user who can rename what is in it, or in a directory above it, could put a server of
    their own in the place of ours.
    """
    given = tempfile.gettempdir()
    for parent in (given, "/tmp"):  # noqa: S108
        if len(os.fsencode(parent)) <= _LONGEST and _safe(parent):
            return parent
    rule = (
        "the directory for temporary files, and each above it, must belong to this user or to root,"
        " and be sticky or writable by its owner only; set TMPDIR to such a one"
    )
    raise ConfigError(rule, given)


def _safe(parent: str) -> bool:
    """Whether nobody else can exchange what is in a directory, or the directory."""
    place = Path(parent).resolve()
    trusted = {0, os.geteuid(), *_outside()}
    for folder in (place, *place.parents):
        try:
            found = folder.stat()
        except OSError:
            return False
        if found.st_uid not in trusted:
            return False
        if writable_by_others(found) and not found.st_mode & stat.S_ISVTX:
            return False
    return True


def _outside() -> set[int]:
    """
    Return the number that stands for all users outside of a user namespace, if this is in one.

    In a sandbox without the system's root, the directories of root seem to be of that user.
    """
    try:
        number = int(_OVERFLOW.read_text("ascii"))
        mapped = [[int(word) for word in line.split()] for line in _MAP.read_text().splitlines()]
    except (OSError, ValueError):
        return set()
    inside = any(first <= number < first + count for first, _, count in mapped)
    return set() if inside else {number}


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
