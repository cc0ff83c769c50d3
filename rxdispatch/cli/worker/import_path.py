"""``add_import_path``: the import path of the worker's module."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from rxdispatch.cli.text import visible
from rxdispatch.errors import ConfigError
from rxdispatch.files.private_file import writable_by_others

__all__ = ["add_import_path"]


def add_import_path(app_dir: Path | None) -> None:
    """
    Make the modules of a folder importable.

    A given folder comes before all others. The current directory, which is the default, comes after
    all others, so that a file there does not replace an installed module. The default is omitted if
    Python runs with a safe path (``-P``, ``PYTHONSAFEPATH``).

    Code in the folder runs as this user. If other users can write the folder, a warning is printed.

    Args:
        app_dir: The folder; None for the current directory.

    Raises:
        ConfigError: If *app_dir* is not a folder.
    """
    if app_dir is None and sys.flags.safe_path:
        return
    try:
        folder = (app_dir or Path()).resolve()
        found = folder.stat()
    except OSError:
        # The current directory may be deleted, or a directory above it unreadable.
        if app_dir is None:
            return
        raise ConfigError("--app-dir must be a folder", str(app_dir)) from None
    if not folder.is_dir():
        raise ConfigError("--app-dir must be a folder", str(app_dir))
    here = str(folder)
    if app_dir is not None:
        sys.path.insert(0, here)
    elif here not in sys.path:
        sys.path.append(here)
    if writable_by_others(found):
        click.echo(
            f"Warning: other users can write {visible(here)}, and modules are imported from it.",
            err=True,
        )
