"""``inject_trace`` and ``traced``: a trace that follows a task through a board."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import cache, update_wrapper
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import attrs

from rxdispatch.claim import current
from rxdispatch.errors import ConfigError
from rxdispatch.failure import describe, traceback_text
from rxdispatch.task import Task
from rxdispatch.telemetry.extras import extra

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

__all__ = ["inject_trace", "traced"]

P = TypeVar("P")
H = TypeVar("H", bound=Callable[..., Any])


class _Api(NamedTuple):
    """What is used of OpenTelemetry."""

    baggage: Any
    context: Any
    propagate: Any
    trace: Any
    tracer: Tracer


@cache
def _api() -> _Api:
    with extra("tracing", "opentelemetry", "tracing"):
        # Here and not above: without the extra the rest of rxdispatch works.
        from opentelemetry import baggage, context, propagate, trace  # noqa: PLC0415
    # Whichever provider is set, now or later, makes the spans; without one nothing is recorded.
    return _Api(baggage, context, propagate, trace, trace.get_tracer("rxdispatch"))


def inject_trace(task: Task[P]) -> Task[P]:
    """
    Return *task* with the current trace context in its headers.

    Use it where tasks are made, inside of your span: ``board.submit(inject_trace(Task(...)))``, or
    ``reactivex.operators.map(inject_trace)``. What the global propagator writes is added,
    ``traceparent`` and ``tracestate`` by default, and ``baggage`` where there is any; without a
    span and baggage the task is returned as it is.

    Raises:
        ConfigError: If opentelemetry-api is not installed, or *task* is no Task.

    Example:
        >>> inject_trace(Task("x", id="a")).headers  # no span
        mappingproxy({})
    """
    if not isinstance(task, Task):
        raise ConfigError("task must be a Task", task)
    carrier: dict[str, str] = {}
    _api().propagate.inject(carrier)
    if not carrier:
        return task
    return attrs.evolve(task, headers={**task.headers, **carrier})


def traced(handler: H, *, baggage: bool = False) -> H:
    """
    Return a handler for ``execute`` that runs *handler* in a span, as part of the task's trace.

    The span is of kind CONSUMER, is called ``process <kind of the task>``, and has a parent where
    the task was submitted with :func:`inject_trace`. It says which task, board and attempt it was;
    an error is recorded and goes on as it would without. Each attempt has a span of its own.

    Args:
        handler: A coroutine function or a plain function. One that runs in a process pool must
            be one that can be pickled, and its spans go where that process sends them.
        baggage: Whether the baggage of the submitter is current in the handler too. It then goes
            out with the handler's own calls, to whichever server they reach. So take it only of
            submitters that may say what those servers are told.

    Raises:
        ConfigError: If opentelemetry-api is not installed, *handler* is not callable, or
            *baggage* is not a bool.
    """
    if not callable(handler):
        raise ConfigError("handler must be callable", handler)
    if not isinstance(baggage, bool):
        raise ConfigError("baggage must be a bool", baggage)
    _api()
    call: Any = getattr(handler, "__call__", None)  # noqa: B004 - the method itself is looked at
    inner = getattr(handler, "func", handler)
    if inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(call):
        made: Any = _TracedCoroutine(handler, baggage)
    else:
        made = _TracedFunction(handler, baggage)
    return made  # type: ignore[no-any-return]


class _Traced:
    """Objects, not closures, so that they can be pickled where the handler can."""

    def __init__(self, handler: Callable[[Task[Any]], Any], baggage: bool) -> None:
        self._handler = handler
        self._baggage = baggage
        wrapper: Any = self
        update_wrapper(wrapper, handler, updated=())

    def __reduce__(self) -> str | tuple[Any, ...]:
        # As a decorator it has taken the name by which its function would be found.
        name = getattr(self, "__qualname__", "")
        found: Any = sys.modules.get(self.__module__)
        for part in name.split("."):
            found = getattr(found, part, None)
        return name if found is self else (type(self), (self._handler, self._baggage))


class _TracedCoroutine(_Traced):
    async def __call__(self, task: Task[Any]) -> Any:
        span = _Attempt(task, self._baggage)
        try:
            return await self._handler(task)
        except BaseException as error:
            span.failed(error)
            raise
        finally:
            span.end()


class _TracedFunction(_Traced):
    def __call__(self, task: Task[Any]) -> Any:
        span = _Attempt(task, self._baggage)
        try:
            return self._handler(task)
        except BaseException as error:
            span.failed(error)
            raise
        finally:
            span.end()


class _Attempt:
    """The span of one attempt, current until it ends."""

    __slots__ = ("_api", "_span", "_token")

    def __init__(self, task: Task[Any], baggage: bool) -> None:
        api = self._api = _api()
        # Only what came with the task is its parent: what is current here is the worker's.
        context = api.context.Context()
        if task.headers:
            context = api.propagate.extract(task.headers, context)
            if not baggage:
                context = api.baggage.clear(context)
        self._span: Span = api.tracer.start_span(
            f"process {task.kind}",
            context,
            api.trace.SpanKind.CONSUMER,
            _attributes(task),
        )
        # The API alone, before version 1.40, makes a span that has forgotten its parent.
        if self._span.get_span_context().is_valid:
            context = api.trace.set_span_in_context(self._span, context)
        self._token = api.context.attach(context)

    def failed(self, error: BaseException) -> None:
        """Record what the handler raised; being cancelled is no error of its."""
        trace = self._api.trace
        if isinstance(error, Exception):
            # Not record_exception(): it calls the error's own methods, which may raise.
            text = describe(error)
            self._span.add_event(
                "exception",
                {
                    "exception.type": _type_of(error),
                    "exception.message": text.partition(": ")[2],
                    "exception.stacktrace": traceback_text(error),
                },
            )
            self._span.set_status(trace.Status(trace.StatusCode.ERROR, text))
        else:
            self._span.add_event("interrupted", {"exception.type": type(error).__name__})

    def end(self) -> None:
        self._api.context.detach(self._token)
        self._span.end()


def _type_of(error: Exception) -> str:
    kind = type(error)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def _shown(text: str) -> str:
    # It may hold what UTF-8 cannot encode, and exporters would drop the span for it.
    return text.encode("utf-8", "backslashreplace").decode()


def _attributes(task: Task[Any]) -> dict[str, Any]:
    # The names of OpenTelemetry's conventions for messaging where there is one.
    found: dict[str, Any] = {
        "messaging.system": "rxdispatch",
        "messaging.operation.type": "process",
        "messaging.message.id": task.id if task.id.isascii() else _shown(task.id),
        "rxdispatch.task.kind": task.kind,
    }
    # There is none in another process, nor where a handler is called by hand.
    claim = current.get(None)
    if claim is not None:
        found["rxdispatch.task.attempt"] = claim.attempt
        board = getattr(claim.custody, "board", None)
        if board is not None:
            found["messaging.destination.name"] = board.name
    return found
