"""``handler_of``, ``pipeline_of``: import the object that ``module:name`` names."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from rxdispatch.callables import check_function
from rxdispatch.cli.worker.log import one_line, print_traceback
from rxdispatch.errors import ConfigError
from rxdispatch.pipelines.stages.pipeline import Pipeline

__all__ = ["handler_of", "pipeline_of"]


def handler_of(spec: str) -> Callable[[Any], Any]:
    """
    Import the handler that *spec* names, as ``module:handler`` or ``package.module:thing.method``.

    :func:`rxdispatch.cli.worker.import_path.add_import_path` sets the import path.

    Raises:
        ConfigError: If *spec* has another form, the module does not import, or the handler is
            missing, cannot be called with a task, or is a generator function.
    """
    found = _imported("handler", spec)
    check_function("handler", found, "task")
    handler: Callable[[Any], Any] = found
    return handler


def pipeline_of(spec: str) -> Pipeline:
    """
    Import the pipeline that *spec* names, as :func:`handler_of` imports a handler.

    Raises:
        ConfigError: As :func:`handler_of`, or if it is not a pipeline.
    """
    found = _imported("pipeline", spec)
    if not isinstance(found, Pipeline):
        raise ConfigError("pipeline must be a Pipeline", type(found).__name__)
    return found


def _imported(what: str, spec: str) -> Any:
    module, colon, path = spec.partition(":")
    if not (colon and _dotted(module) and _dotted(path)):
        raise ConfigError(f"{what} must be given as module:name", spec)
    try:
        found: Any = importlib.import_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is None or not f"{module}.".startswith(f"{missing}."):
            print_traceback(error)
        raise ConfigError(f"module {module} must import ({one_line(error)})") from error
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise ConfigError(f"{what} must be in module {module}", path) from None
    return found


def _dotted(path: str) -> bool:
    return all(name.isidentifier() for name in path.split("."))
