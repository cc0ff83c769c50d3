"""The loggers of rxdispatch: structlog if the application uses it, else standard logging."""

from __future__ import annotations

import logging
import re
from typing import Any

import structlog

from rxdispatch.error_text import describe, traceback_text

__all__ = ["Logger", "get_logger"]

_PLAIN = re.compile(r"[\w.:/@+-]+")
_METHODS = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
}


class Logger:
    """
    A logger of events with keys.

    Events go to structlog if the application has configured it. Otherwise they go to the standard
    library's logger *name*, which prints warnings on stderr unless the application has configured
    logging. This class configures nothing.

    Pass an error as ``failure=error``. The entry then has its type and message, and its traceback
    without local variables. No entry may have a payload, an argument or a local variable, whatever
    renders it; that is why ``exc_info`` is not used.
    """

    __slots__ = ("_standard", "_structured")

    def __init__(self, name: str) -> None:
        self._standard = logging.getLogger(name)
        self._structured: Any = structlog.get_logger(name)

    def debug(self, event: str, **keys: Any) -> None:
        """Log *event* with level DEBUG."""
        self._write(logging.DEBUG, event, keys)

    def info(self, event: str, **keys: Any) -> None:
        """Log *event* with level INFO."""
        self._write(logging.INFO, event, keys)

    def warning(self, event: str, **keys: Any) -> None:
        """Log *event* with level WARNING."""
        self._write(logging.WARNING, event, keys)

    def error(self, event: str, **keys: Any) -> None:
        """Log *event* with level ERROR."""
        self._write(logging.ERROR, event, keys)

    def _write(self, level: int, event: str, keys: dict[str, Any]) -> None:
        failure: BaseException | None = keys.pop("failure", None)
        try:
            if structlog.is_configured():
                if failure is not None:
                    keys["error"] = describe(failure)
                    # Renderers print the key "stack" as it is, but warn about "exception".
                    keys["stack"] = traceback_text(failure)
                getattr(self._structured, _METHODS[level])(event, **keys)
            elif self._standard.isEnabledFor(level):
                self._standard_record(level, event, keys, failure)
        except Exception as error:
            # The application's processors, filters and handlers are not ours. An error in them
            # must not stop the code that logs.
            _last_resort(event, error)

    def _standard_record(
        self, level: int, event: str, keys: dict[str, Any], failure: BaseException | None
    ) -> None:
        if failure is not None:
            keys["error"] = describe(failure)
        message = " ".join((event, *(f"{key}={_shown(value)}" for key, value in keys.items())))
        logger = self._standard
        path, line, function, _ = logger.findCaller(stacklevel=4)
        record = logger.makeRecord(
            logger.name, level, path, line, message, (), None, function, {"event": event}
        )
        if failure is not None:
            # As text, so that no logging handler can reach the frames and their variables.
            record.exc_text = traceback_text(failure)
        logger.handle(record)


def get_logger(name: str) -> Logger:
    """Return the logger of the module *name*."""
    return Logger(name)


def _shown(value: Any) -> str:
    text = str(value) if isinstance(value, (str, int, float)) else repr(value)
    # Text with spaces or control characters is quoted, so that it cannot look like keys.
    return text if _PLAIN.fullmatch(text) or not isinstance(value, str) else repr(value)


def _last_resort(event: str, error: Exception) -> None:
    if logging.lastResort is not None:
        text = f"{event}: the application's logging raised {describe(error)}"
        logging.lastResort.handle(
            logging.LogRecord("rxdispatch", logging.ERROR, __file__, 0, text, (), None)
        )
