"""``extra``: turns a missing optional package into an error that names the extra to install."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from rxdispatch.errors import ConfigError

__all__ = ["extra"]


@contextmanager
def extra(name: str, package: str, what: str) -> Generator[None]:
    """
    Import an optional package inside this block.

    Args:
        name: The extra that installs the package.
        package: The name under which the package is imported.
        what: The feature that needs it.

    Raises:
        ConfigError: If the package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise ConfigError(f"{what} must have rxdispatch[{name}] installed", error.name) from error
