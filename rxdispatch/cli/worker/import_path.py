"""``let_import``: where the worker finds the module that it is told to run."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from rxdispatch.cli.text import visible
from rxdispatch.errors import ConfigError
from rxdispatch.files.private_file import writable_by_others

__all__ = ["let_import"]


def let_import(app_dir: Path | None) -> None:
    """
    Make the modules of a folder importable.

    A folder that is named comes before all others. The current directory, which is taken when
    none is named, comes after all others: what lies there by chance takes no installed module's
    place. It is left out where Python was told to keep to a safe path (``-P``,
    ``PYTHONSAFEPATH``).

    Code in the folder runs as this user. A warning is printed where other users can write it.

    Args:
        app_dir: The folder; None for the current directory.

    Raises:
        ConfigError: If *app_dir* is no folder.
    """
    if app_dir is None and sys.flags.safe_path:
        return
    try:
        folder = (app_dir or Path()).resolve()
        found = folder.stat()
    except OSError:
        # The current directory can be gone, or above it one that must not be read.
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
