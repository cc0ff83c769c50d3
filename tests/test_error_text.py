"""The text of errors, whatever their own methods do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rxdispatch.error_text import ERROR_LIMIT, TRACEBACK_LIMIT, cause_of, describe, traceback_text
from rxdispatch.errors import TaskExecutionError


class _SilentError(Exception):
    def __init__(self, worse: BaseException) -> None:
        self.worse = worse

    def __str__(self) -> str:
        raise self.worse


class _NotTextError(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # noqa: PLE0307


def _raised(error: BaseException) -> BaseException:
    secret = "sk-secret-local"
    try:
        raise error
    except BaseException as caught:
        assert secret
        return caught


def test_names_type_and_message() -> None:
    """The text is the last line of a traceback."""
    assert describe(ValueError("no address")) == "ValueError: no address"


@pytest.mark.parametrize(
    "worse", [KeyError("x"), SystemExit(), KeyboardInterrupt(), asyncio.CancelledError()]
)
def test_survives_a_message_that_raises(worse: BaseException) -> None:
    """The error that a ``__str__`` raises becomes part of the text."""
    error = _raised(_SilentError(worse))
    assert describe(error) == f"_SilentError: <no message: {type(worse).__name__}>"
    assert "_SilentError" in traceback_text(error)


def test_survives_a_message_that_is_no_text() -> None:
    """A ``__str__`` that returns a number is treated as one that raises."""
    assert describe(_NotTextError()) == "_NotTextError: <no message: TypeError>"


def test_names_the_error_that_wrappers_carry() -> None:
    """The text is that of the user's error inside our wrappers."""

    class StageLikeError(TaskExecutionError):
        pass

    inner, outer = StageLikeError("a", 1), TaskExecutionError("a", 1)
    inner.__cause__, outer.__cause__ = ValueError("deep"), inner
    assert describe(outer) == "ValueError: deep"


def test_a_wrapper_in_a_cycle_ends() -> None:
    """A wrapper that is its own cause is described, not followed forever."""
    error = TaskExecutionError("a", 1)
    error.__cause__ = error
    assert cause_of(error) is error
    assert "failed at attempt 1" in traceback_text(error)


def test_text_can_be_stored() -> None:
    """Lone surrogates become replacement characters, and the length is bounded."""
    assert describe(ValueError("\ud800")) == "ValueError: \ufffd"
    assert len(describe(ValueError("x" * 10_000))) == ERROR_LIMIT


def test_traceback_has_causes_and_parts_but_no_locals() -> None:
    """The traceback has causes, parts of groups and frames, but no values of variables."""
    try:
        try:
            raise OSError("disk")
        except OSError as disk:
            raise ExceptionGroup("several", [KeyError("k"), ValueError("v")]) from disk
    except ExceptionGroup as group:
        group.exceptions[0].__cause__ = _raised(RuntimeError("below"))
        text = traceback_text(group)
    for part in ("OSError: disk", "KeyError: 'k'", "ValueError: v", "RuntimeError: below"):
        assert part in text
    assert __file__ in text
    assert "several (2 sub-exceptions)" in text


def test_traceback_keeps_its_end_within_the_limit() -> None:
    """A long traceback loses its start; a long message does not displace the frames."""

    def deep(n: int) -> None:
        if n:
            deep(n - 1) if n % 2 else deeper(n - 1)
        else:
            raise ValueError("é" * 100_000)

    def deeper(n: int) -> None:
        deep(n)

    with pytest.raises(ValueError, match="é") as caught:
        deep(200)
    text = traceback_text(caught.value)
    assert len(text.encode()) <= TRACEBACK_LIMIT
    assert text.startswith("...")
    assert text.endswith("é")
    assert "in deep" in text


def test_cycles_and_deep_chains_end() -> None:
    """Chains of causes end, even if users made them cyclic or very deep."""
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert "ValueError: first" in traceback_text(first)
    group: Any = ValueError("core")
    for _ in range(5000):
        group = ExceptionGroup("around", [group])
    assert "around" in traceback_text(group)
