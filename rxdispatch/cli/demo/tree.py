"""``Tree``: the files that the demo dispatches."""

from __future__ import annotations

import hashlib
import os
import stat
import sysconfig
from pathlib import Path
from typing import Final

import attrs

from rxdispatch.checks import ID_LIMIT, utf8_size
from rxdispatch.errors import ConfigError

__all__ = ["Tree", "find_files"]

_END: Final = 100
"""The characters kept at each end of a long path."""

_NOT_OURS: Final = ("site-packages", "dist-packages")


@attrs.frozen
class Tree:
    """
    The files below a folder.

    Args:
        root: The folder, or the only file.
        files: The absolute path of each file as bytes, by task id; sorted. The id is the path
            relative to the root, cut in the middle if it is too long for an id.
        unread: Folders that could not be read.
    """

    root: Path
    files: dict[str, bytes]
    unread: tuple[str, ...]


def find_files(path: Path | None) -> Tree:
    """
    Return every ``.py`` file below *path*, or *path* itself if it is a file.

    Links to folders are not followed. Broken links count as files: reading them fails, as it
    should. Special files, such as pipes, are omitted: reading one may block forever.

    Args:
        path: The path; None for the standard library of this Python, without installed packages.

    Raises:
        ConfigError: If the path does not exist, cannot be read, or contains no such file.
    """
    root = Path(sysconfig.get_path("stdlib") if path is None else path).resolve()
    if not root.exists():
        raise ConfigError("PATH must exist", str(root))
    if root.is_file():
        return Tree(root, {root.name: os.fsencode(root)}, ())
    if not root.is_dir():
        raise ConfigError("PATH must be a folder or a file", str(root))
    if not os.access(root, os.R_OK | os.X_OK):
        raise ConfigError("PATH must be a folder that can be read", str(root))
    top, unread = str(root), list[str]()
    files: dict[str, bytes] = {}
    for folder, folders, names in os.walk(top, onerror=lambda e: unread.append(str(e.filename))):
        if path is None and folder == top:
            folders[:] = [name for name in folders if name not in _NOT_OURS]
        for name in names:
            full = os.path.join(folder, name)  # noqa: PTH118 - os.walk deals in str
            if name.endswith(".py") and _is_regular(full):
                files[_named(os.path.relpath(full, top))] = os.fsencode(full)
    if not files:
        raise ConfigError("PATH must hold at least one .py file", str(root))
    return Tree(root, dict(sorted(files.items())), tuple(sorted(unread)))


def _named(path: str) -> str:
    """Return the id of a file's task: its path, or the ends of a long path around its digest."""
    if utf8_size(path) <= ID_LIMIT:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    return f"{path[:_END]}...{digest}...{path[-_END:]}"


def _is_regular(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - by far the quickest
    except OSError:
        return True
