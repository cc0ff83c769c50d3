"""
Files and folders that no other user of the machine can plant or write.

The user that creates a file first owns it, and a link can point anywhere. So a file that is opened
by name in a place where several users can write is checked before use: it must have the right
type, belong to this process's user, be writable by no other user, and not be a link.

A write bit for the group counts as one for all users, unless the group is the user's own group,
whose id is the id of the user, as ``useradd`` creates it. Distributions with such groups use
umask 002.
"""

from __future__ import annotations

import os
import pwd
import stat
from typing import Final

from rxdispatch.errors import ConfigError

__all__ = ["check_private", "open_private", "open_private_folder", "owner_of", "writable_by_others"]

# O_NONBLOCK keeps a named pipe from blocking the process; it has no effect on regular files.
_CAREFUL: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

Path = str | os.PathLike[str]


def open_private(
    path: Path, flags: int, *, what: str, dir_fd: int | None = None, links: bool = False
) -> int:
    """
    Open a private regular file of this user; with ``O_CREAT`` a new one has mode 0600.

    Args:
        path: The file.
        flags: As for :func:`os.open`.
        what: Its name in errors.
        dir_fd: The descriptor of its folder, used instead of the folder in *path*.
        links: Whether it may have other names (hard links).

    Raises:
        ConfigError: If another user may have made the file.
        OSError: If it cannot be opened.
    """
    return _open(path, flags, what, dir_fd, directory=False, links=links)


def open_private_folder(path: Path, *, what: str, dir_fd: int | None = None) -> int:
    """
    Open a private folder of this user, and return its descriptor.

    Raises:
        ConfigError: If another user may have made the folder.
        OSError: If it cannot be opened.
    """
    return _open(path, os.O_RDONLY | os.O_DIRECTORY, what, dir_fd, directory=True, links=False)


def check_private(
    found: os.stat_result, path: Path, *, what: str, directory: bool = False, links: bool = False
) -> None:
    """
    Check that only this user can have made the file or folder.

    Args:
        found: The result of :func:`os.fstat` or :func:`os.lstat`.
        path: Its path.
        what: Its name in errors.
        directory: Whether it must be a folder.
        links: Whether a file may have other names (hard links).

    Raises:
        ConfigError: If another user may have made it or can change it.
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
    """Whether a user other than the owner can write it."""
    if found.st_mode & stat.S_IWOTH:
        return True
    own_group = found.st_gid == found.st_uid != 0
    return bool(found.st_mode & stat.S_IWGRP) and not own_group


def owner_of(uid: int) -> str:
    """Return the name and the id of a user; only the id if there is no name."""
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
        # Links and other users' files fail in different ways; raise the real reason if it is one.
        found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        check_private(found, path, what=what, directory=directory, links=links)
        raise
    try:
        check_private(os.fstat(fd), path, what=what, directory=directory, links=links)
    except BaseException:
        os.close(fd)
        raise
    return fd
