"""``extra``: a module that only an extra installs, or an error that names the extra."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from rxdispatch.errors import ConfigError

__all__ = ["extra"]


@contextmanager
def extra(name: str, package: str, what: str) -> Generator[None]:
    """
    Import inside of it.

    Args:
        name: Of the extra.
        package: That it installs, as it is imported.
        what: That needs it.

    Raises:
        ConfigError: If the package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise ConfigError(f"{what} must have rxdispatch[{name}] installed", error.name) from error
