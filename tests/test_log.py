"""Where log entries go, and what they never contain."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from typing import Any

import pytest
import structlog

from rxdispatch.log import get_logger

SECRET = "sk-SECRET-LOCAL"


def _failure() -> ValueError:
    api_key = SECRET
    try:
        raise ValueError(f"key of {len(api_key)} characters refused")
    except ValueError as error:
        return error


def test_goes_to_standard_logging(caplog: pytest.LogCaptureFixture) -> None:
    """Without structlog, an entry is a record of the standard library."""
    get_logger("rxdispatch.x").warning("stage_waits", board="a b", count=2, failure=_failure())
    (record,) = caplog.records
    assert ("rxdispatch.x", logging.WARNING) == (record.name, record.levelno)
    assert record.getMessage() == (
        "stage_waits board='a b' count=2 error='ValueError: key of 15 characters refused'"
    )
    assert (record.exc_info, record.filename) == (None, "test_log.py")
    assert "in _failure" in (record.exc_text or "")


def test_heeds_the_level_of_standard_logging(caplog: pytest.LogCaptureFixture) -> None:
    """An entry below the level of the logger is not written."""
    caplog.set_level(logging.ERROR, "rxdispatch.x")
    log = get_logger("rxdispatch.x")
    log.debug("a")
    log.info("b")
    log.warning("c")
    log.error("d")
    assert [record.getMessage() for record in caplog.records] == ["d"]


@pytest.mark.parametrize(
    "renderer",
    [
        structlog.dev.ConsoleRenderer(),
        structlog.processors.JSONRenderer(),
        structlog.processors.KeyValueRenderer(),
    ],
)
def test_structlog_renders_frames_but_no_locals(renderer: Any) -> None:
    """However the application renders an entry, it cannot reach local variables."""
    out = io.StringIO()
    structlog.configure(
        processors=[structlog.processors.format_exc_info, renderer],
        logger_factory=structlog.PrintLoggerFactory(out),
    )
    get_logger("rxdispatch.x").warning("item_failed", failure=_failure())
    assert "in _failure" in out.getvalue()
    assert SECRET not in out.getvalue()


@pytest.mark.parametrize("wrapper", [structlog.BoundLogger, structlog.stdlib.BoundLogger])
def test_uses_any_bound_logger(wrapper: type[structlog.typing.BindableLogger]) -> None:
    """The application chooses the class of its structlog loggers."""
    out = io.StringIO()
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()],
        wrapper_class=wrapper,
        logger_factory=structlog.PrintLoggerFactory(out),
    )
    get_logger("rxdispatch.x").error("item_failed", stage="s")
    assert json.loads(out.getvalue()) == {"event": "item_failed", "stage": "s"}


def test_logging_that_raises_harms_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    """An error in the application's log processor is printed on stderr, and nothing ends."""

    def broken(*_: Any) -> Any:
        raise RuntimeError("no disk")

    structlog.configure(processors=[broken])
    get_logger("rxdispatch.x").warning("item_failed")
    assert "item_failed: the application's logging raised RuntimeError: no disk" in (
        capsys.readouterr().err
    )


PROGRAM = f"""
from rxdispatch.log import get_logger
def f(api_key="{SECRET}"):
    raise ValueError("refused")
try:
    f()
except ValueError as error:
    get_logger("rxdispatch.x").warning("item_failed", failure=error)
    get_logger("rxdispatch.x").info("not shown")
"""


def test_prints_warnings_on_stderr_by_default() -> None:
    """Without configuration, a program prints warnings with their traceback on stderr."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    assert done.stderr.startswith("item_failed error='ValueError: refused'\nTraceback (most")
    assert "not shown" not in done.stderr
    assert SECRET not in done.stderr
