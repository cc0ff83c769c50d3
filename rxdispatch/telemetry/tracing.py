"""``inject_trace`` and ``traced``: a trace that follows a task through a board."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import cache, update_wrapper
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import attrs

from rxdispatch.claim import current
from rxdispatch.error_text import describe, traceback_text
from rxdispatch.errors import ConfigError
from rxdispatch.extras import extra
from rxdispatch.task import Task

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

__all__ = ["inject_trace", "traced"]

P = TypeVar("P")
H = TypeVar("H", bound=Callable[..., Any])


class _Api(NamedTuple):
    """The parts of OpenTelemetry that this module uses."""

    baggage: Any
    context: Any
    propagate: Any
    trace: Any
    tracer: Tracer


@cache
def _api() -> _Api:
    with extra("tracing", "opentelemetry", "tracing"):
        # Imported here, so that the rest of rxdispatch works without the extra.
        from opentelemetry import baggage, context, propagate, trace  # noqa: PLC0415
    # The global provider makes the spans, even if it is set later; without one nothing is recorded.
    return _Api(baggage, context, propagate, trace, trace.get_tracer("rxdispatch"))


def inject_trace(task: Task[P]) -> Task[P]:
    """
    Return *task* with the current trace context in its headers.

    Call it where you create tasks, inside your span: ``board.submit(inject_trace(Task(...)))``, or
    ``reactivex.operators.map(inject_trace)``. It adds the headers of the global propagator, by
    default ``traceparent`` and ``tracestate``, and ``baggage`` if there is any. Without a span and
    baggage it returns the task unchanged.

    Raises:
        ConfigError: If opentelemetry-api is not installed, or *task* is not a Task.

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

    Each attempt has a span of its own, with the kind CONSUMER and the name
    ``process <kind of the task>``. The span has a parent if the task was submitted with
    :func:`inject_trace`. Its attributes name the task, the board and the attempt. It records an
    error of the handler, which then propagates as usual.

    Args:
        handler: A coroutine function or a plain function. For a process pool it must be
            picklable; its spans go where that process sends them.
        baggage: Whether the baggage of the submitter is current in the handler. The handler's own
            calls then carry it to every server they reach, so accept it only from submitters that
            you trust with this.

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
    """A handler that runs in a span; an object, not a closure, so that pickle can handle it."""

    def __init__(self, handler: Callable[[Task[Any]], Any], baggage: bool) -> None:
        self._handler = handler
        self._baggage = baggage
        wrapper: Any = self
        update_wrapper(wrapper, handler, updated=())

    def __reduce__(self) -> str | tuple[Any, ...]:
        # If traced() was used as a decorator, pickle finds this object under the function's name.
        name = getattr(self, "__qualname__", "")
        found: Any = sys.modules.get(self.__module__)
        for part in name.split("."):
            found = getattr(found, part, None)
        return name if found is self else (type(self), (self._handler, self._baggage))


class _TracedCoroutine(_Traced):
    async def __call__(self, task: Task[Any]) -> Any:
        span = _AttemptSpan(task, self._baggage)
        try:
            return await self._handler(task)
        except BaseException as error:
            span.failed(error)
            raise
        finally:
            span.end()


class _TracedFunction(_Traced):
    def __call__(self, task: Task[Any]) -> Any:
        span = _AttemptSpan(task, self._baggage)
        try:
            return self._handler(task)
        except BaseException as error:
            span.failed(error)
            raise
        finally:
            span.end()


class _AttemptSpan:
    """The span of one attempt, current until it ends."""

    __slots__ = ("_api", "_span", "_token")

    def __init__(self, task: Task[Any], baggage: bool) -> None:
        api = self._api = _api()
        # Only the task's headers name the parent: the current context belongs to the worker.
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
        # Without an SDK, the API before version 1.40 makes a span without its parent.
        if self._span.get_span_context().is_valid:
            context = api.trace.set_span_in_context(self._span, context)
        self._token = api.context.attach(context)

    def failed(self, error: BaseException) -> None:
        """Record an error of the handler; a cancellation is not an error."""
        trace = self._api.trace
        if isinstance(error, Exception):
            # Not record_exception(): it calls methods of the error, which may raise.
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
    # The text may hold characters that UTF-8 cannot encode; exporters would drop the span.
    return text.encode("utf-8", "backslashreplace").decode()


def _attributes(task: Task[Any]) -> dict[str, Any]:
    # The names of OpenTelemetry's messaging conventions, where one fits.
    found: dict[str, Any] = {
        "messaging.system": "rxdispatch",
        "messaging.operation.type": "process",
        "messaging.message.id": task.id if task.id.isascii() else _shown(task.id),
        "rxdispatch.task.kind": task.kind,
    }
    # None in a process pool, or when a handler is called directly.
    claim = current.get(None)
    if claim is not None:
        found["rxdispatch.task.attempt"] = claim.attempt
        found["messaging.destination.name"] = claim._origin.board.name
    return found
