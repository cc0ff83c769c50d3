"""``extra``: an error that names the extra to install when an optional package is missing."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from rxdispatch.errors import ConfigError

__all__ = ["extra"]


@contextmanager
def extra(name: str, package: str, what: str) -> Generator[None]:
    """
    Guard an import of an optional package: if it is missing, the error names the extra to install.

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
