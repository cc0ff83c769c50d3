"""
Files and folders that no other user of the machine can have planted or can write.

The user who makes a file first owns it, and a link leads wherever its maker wants. So what is
opened by name in a place that several users can write is looked at before it is used: it must be
what was asked for, belong to this process's user, be writable by nobody else, and be no link.

A write bit for the group counts as one for others, unless the group is the user's own: one with
the number of the user, as ``useradd`` makes it. Distributions with such groups use umask 002.
"""

from __future__ import annotations

import os
import pwd
import stat
from typing import Final

from rxdispatch.errors import ConfigError

__all__ = ["check_private", "open_private", "open_private_folder", "owner_of", "writable_by_others"]

# A pipe without a reader must not keep the process waiting; for regular files it is without effect.
_CAREFUL: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

Path = str | os.PathLike[str]


def open_private(
    path: Path, flags: int, *, what: str, dir_fd: int | None = None, links: bool = False
) -> int:
    """
    Open a regular file of this user's alone; with ``O_CREAT`` a new one has mode 0600.

    Args:
        path: The file.
        flags: As for :func:`os.open`.
        what: What errors call it.
        dir_fd: The folder that it is in, which is used in place of the one that *path* names.
        links: Whether it may have further names (hard links).

    Raises:
        ConfigError: If the file can be another user's work.
        OSError: If it cannot be opened.
    """
    return _open(path, flags, what, dir_fd, directory=False, links=links)


def open_private_folder(path: Path, *, what: str, dir_fd: int | None = None) -> int:
    """
    Open a folder of this user's alone, for its descriptor.

    Raises:
        ConfigError: If the folder can be another user's work.
        OSError: If it cannot be opened.
    """
    return _open(path, os.O_RDONLY | os.O_DIRECTORY, what, dir_fd, directory=True, links=False)


def check_private(
    found: os.stat_result, path: Path, *, what: str, directory: bool = False, links: bool = False
) -> None:
    """
    Compare what was found with what this user alone can have made.

    Args:
        found: What :func:`os.fstat` or :func:`os.lstat` tells.
        path: Where it was found.
        what: What errors call it.
        directory: Whether it must be a folder.
        links: Whether a file may have further names (hard links).

    Raises:
        ConfigError: If another user can have made or can change it.
    """
    name = os.fspath(path)
    if stat.S_ISLNK(found.st_mode):
        raise ConfigError(f"{what} must not be a symbolic link", name)
    if directory and not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{what} must be a directory", name)
    if not directory and not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{what} must be a regular file", name)
    if found.st_uid != os.geteuid():
        mine, theirs = owner_of(os.geteuid()), owner_of(found.st_uid)
        rule = f"{what} must belong to the user of this process, {mine}, not to {theirs}"
        raise ConfigError(rule, name)
    if writable_by_others(found):
        raise ConfigError(f"{what} must be writable by its owner only (chmod go-w)", name)
    if not (directory or links) and found.st_nlink > 1:
        raise ConfigError(f"{what} must have one name, not {found.st_nlink} (hard links)", name)


def writable_by_others(found: os.stat_result) -> bool:
    """Whether another user than the owner may write it."""
    if found.st_mode & stat.S_IWOTH:
        return True
    own_group = found.st_gid == found.st_uid != 0
    return bool(found.st_mode & stat.S_IWGRP) and not own_group


def owner_of(uid: int) -> str:
    """Return the name of a user, and the number; only the number where there is no name."""
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _open(
    path: Path, flags: int, what: str, dir_fd: int | None, *, directory: bool, links: bool
) -> int:
    name = path if dir_fd is None else os.path.basename(path)  # noqa: PTH119
    try:
        fd = os.open(name, flags | _CAREFUL, 0o600, dir_fd=dir_fd)
    except FileNotFoundError:
        raise
    except OSError:
        # Links and other users' files fail in different ways; tell the reason instead.
        found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        check_private(found, path, what=what, directory=directory, links=links)
        raise
    try:
        check_private(os.fstat(fd), path, what=what, directory=directory, links=links)
    except BaseException:
        os.close(fd)
        raise
    return fd
