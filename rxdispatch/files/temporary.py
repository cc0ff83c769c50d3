"""The directory for temporary files, if no other user can replace files in it."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from rxdispatch.errors import ConfigError
from rxdispatch.files.private_file import writable_by_others

__all__ = ["temporary_folder"]

_OVERFLOW: Final = Path("/proc/sys/kernel/overflowuid")
_MAP: Final = Path("/proc/self/uid_map")


def temporary_folder(longest: int = 4096) -> str:
    """
    Return the directory for temporary files, or ``/tmp`` if its path is too long or not safe.

    A user that can rename files in it, or in a directory above it, could replace our files.

    Args:
        longest: The most bytes that its path may have.

    Raises:
        ConfigError: If neither directory is safe.
    """
    given = tempfile.gettempdir()
    for parent in (given, "/tmp"):  # noqa: S108
        if len(os.fsencode(parent)) <= longest and _safe(parent):
            return parent
    rule = (
        "the directory for temporary files, and each directory above it, must belong to this user"
        " or to root, and be sticky or writable by its owner only; set TMPDIR to such a directory"
    )
    raise ConfigError(rule, given)


def _safe(parent: str) -> bool:
    """Whether no other user can replace the files in a directory, or the directory itself."""
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
    Return the uid that this process sees for all users outside its user namespace, if it has one.

    In a sandbox without the system's root user, root's directories seem to belong to that uid.
    """
    try:
        number = int(_OVERFLOW.read_text("ascii"))
        mapped = [[int(word) for word in line.split()] for line in _MAP.read_text().splitlines()]
    except (OSError, ValueError):
        return set()
    inside = any(first <= number < first + count for first, _, count in mapped)
    return set() if inside else {number}
