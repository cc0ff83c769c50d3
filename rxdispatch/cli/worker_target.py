"""``handler_of``: the function that ``module:handler`` names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rxdispatch.errors import ConfigError

__all__ = ["handler_of"]


def handler_of(spec: str) -> Callable[[Any], Any]:
    """
    Import the handler that *spec* names, as ``module:handler`` or ``package.module:thing.method``.

    Modules of the directory that the command is run in are found, as ``python -m`` finds them.

    Raises:
        ConfigError: If it is not of that form, the module does not import, or what it names is
            missing or cannot be called.
    """
    module, colon, path = spec.partition(":")
    if not (colon and _dotted(module) and _dotted(path)):
        raise ConfigError("handler must be given as module:name", spec)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"module {module} must import ({_text(error)})") from error
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise ConfigError(f"handler must be in module {module}", path) from None
    if not callable(found):
        raise ConfigError("handler must be callable", found)
    handler: Callable[[Any], Any] = found
    return handler


def _dotted(path: str) -> bool:
    return all(name.isidentifier() for name in path.split("."))


def _text(error: BaseException) -> str:
    # One line: what a module raises may have many.
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
