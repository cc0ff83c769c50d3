"""Traces that follow a task, with OpenTelemetry's own SDK."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Literal

import pytest
import reactivex
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from reactivex import operators as rx

import rxdispatch as rxd
from rxdispatch import operators as ops
from tests.servers import valkey_server

SPANS = InMemorySpanExporter()


@pytest.fixture(autouse=True)
def spans() -> Generator[InMemorySpanExporter]:
    """Return the exported spans; the provider is global, and can be set only once."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(SPANS))
        trace.set_tracer_provider(provider)
    SPANS.clear()
    yield SPANS
    SPANS.clear()


def finished() -> dict[str, ReadableSpan]:
    """Return the spans by name."""
    return {span.name: span for span in SPANS.get_finished_spans()}


def ids(span: ReadableSpan) -> trace.SpanContext:
    """Return the ids of the trace and the span."""
    found = span.get_span_context()
    assert found is not None
    return found


@rxd.traced
def plain(task: rxd.Task[int]) -> int:
    """Double the payload."""
    return task.payload * 2


async def work(
    board: rxd.Board[Any],
    handler: Any,
    until: Literal["idle", "joined"] = "idle",
    **options: Any,
) -> list[Any]:
    """Run the ready tasks, or all; return the outcomes."""
    outcomes: list[Any] = []
    await rxd.run(
        board.claims(until=until).pipe(
            ops.execute(handler, **options), ops.settle(board), rx.do_action(outcomes.append)
        )
    )
    return outcomes


async def test_from_producer_to_handler() -> None:
    """The handler's span is a child of the producer's, and the parent of its own calls."""
    tracer = trace.get_tracer("test")
    board = rxd.MemoryBoard[Any]("jobs")

    async def handle(task: rxd.Task[Any]) -> None:
        with tracer.start_as_current_span("inner"):
            await asyncio.sleep(0)

    with tracer.start_as_current_span("outer"):
        task = rxd.Task("x", id="a", kind="resize", priority=3, headers={"user": "7"})
        sent = rxd.inject_trace(task)
        await board.submit(sent)
    assert {"user", "traceparent"} == set(sent.headers)
    assert {"user": "7"} == task.headers
    assert (task.id, task.kind, task.priority) == (sent.id, sent.kind, sent.priority)
    await work(board, rxd.traced(handle))

    found = finished()
    outer, process, inner = found["outer"], found["process resize"], found["inner"]
    assert ids(outer).trace_id == ids(process).trace_id == ids(inner).trace_id
    assert process.parent is not None
    assert inner.parent is not None
    assert ids(outer).span_id == process.parent.span_id
    assert ids(process).span_id == inner.parent.span_id
    assert trace.SpanKind.CONSUMER is process.kind
    assert {
        "messaging.system": "rxdispatch",
        "messaging.operation.type": "process",
        "messaging.destination.name": "jobs",
        "messaging.message.id": "a",
        "rxdispatch.task.kind": "resize",
        "rxdispatch.task.attempt": 1,
    } == dict(process.attributes or {})
    assert trace.StatusCode.UNSET is process.status.status_code
    assert not trace.get_current_span().get_span_context().is_valid


async def test_without_a_span() -> None:
    """The task is unchanged, and the handler's span starts a new trace."""
    task = rxd.Task("x")
    assert task is rxd.inject_trace(task)
    board = rxd.MemoryBoard[Any]("jobs")
    await board.submit(task)
    with trace.get_tracer("test").start_as_current_span("worker"):
        await work(board, plain)
    found = finished()
    assert found["process default"].parent is None
    assert ids(found["worker"]).trace_id != ids(found["process default"]).trace_id


async def test_each_attempt_has_a_span() -> None:
    """An error is recorded, propagates, and is retried in the same trace."""
    board = rxd.MemoryBoard[Any]("jobs")

    async def handle(task: rxd.Task[Any]) -> None:
        if rxd.current_claim().attempt == 1:
            raise ValueError("no luck")

    with trace.get_tracer("test").start_as_current_span("outer") as outer:
        await board.submit(rxd.inject_trace(rxd.Task("x", id="a")))
    failed, done = await work(board, rxd.traced(handle), until="joined")
    assert ("retry", "done") == (failed.status, done.status)
    assert isinstance(failed.error.__cause__, ValueError)
    first, second = [s for s in SPANS.get_finished_spans() if s.name == "process default"]
    assert outer.get_span_context().trace_id == ids(first).trace_id == ids(second).trace_id
    assert trace.StatusCode.ERROR is first.status.status_code
    assert "ValueError: no luck" == first.status.description
    assert ["exception"] == [event.name for event in first.events]
    attempts = [span.attributes["rxdispatch.task.attempt"] for span in (first, second)]  # type: ignore[index]
    assert [1, 2] == attempts
    assert trace.StatusCode.UNSET is second.status.status_code


async def test_a_handler_that_is_cancelled() -> None:
    """The span of the handler ends with an event "interrupted", and without an error."""
    started = asyncio.Event()

    async def handle(task: rxd.Task[Any]) -> None:
        started.set()
        await asyncio.sleep(1000)

    handler: Any = rxd.traced(handle)
    running = asyncio.create_task(handler(rxd.Task("x")))
    await started.wait()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    (span,) = SPANS.get_finished_spans()
    assert trace.StatusCode.UNSET is span.status.status_code
    assert ["interrupted"] == [event.name for event in span.events]
    # The handler is called directly, so there is neither a board nor an attempt.
    assert "rxdispatch.task.attempt" not in (span.attributes or {})


async def test_in_threads_and_processes() -> None:
    """Plain functions are traced too, and a value comes back from another process."""
    board = rxd.MemoryBoard[Any]("jobs")
    await board.submit(rxd.Task(21))
    (outcome,) = await work(board, plain)
    assert 42 == outcome.result
    (span,) = SPANS.get_finished_spans()
    assert "jobs" == (span.attributes or {})["messaging.destination.name"]
    await board.submit(rxd.Task(4))
    with ProcessPoolExecutor(1) as executor:
        (outcome,) = await work(board, plain, executor=executor)
    assert 8 == outcome.result


@pytest.mark.parametrize("asked", [False, True])
async def test_baggage_is_taken_on_demand_only(asked: bool) -> None:
    """By default the baggage of the submitter is dropped, although its trace continues."""
    parent = f"00-{'ab' * 16}-{'cd' * 8}-01"
    task = rxd.Task("x", headers={"traceparent": parent, "baggage": "tenant=SECRET"})

    async def handle(task: rxd.Task[Any]) -> dict[str, str]:
        sent: dict[str, str] = {}
        propagate.inject(sent)
        return sent

    handler: Any = rxd.traced(handle, baggage=asked)
    sent = await checked(handler)(task)
    assert "ab" * 16 == sent["traceparent"].split("-")[1]
    assert ("tenant=SECRET" if asked else None) == sent.get("baggage")


def checked(handler: Any) -> Any:
    """Return *handler*, after a check that its pickled form makes the same choice."""
    kind, arguments = handler.__reduce__()
    assert vars(handler)["_baggage"] == vars(kind(*arguments))["_baggage"]
    return handler


class HostileError(Exception):
    """An error that cannot be printed."""

    def __str__(self) -> str:
        raise OSError("no words")


async def test_an_error_that_cannot_be_shown() -> None:
    """The handler's own error propagates, and the span names its type."""

    async def handle(task: rxd.Task[Any]) -> None:
        raise HostileError

    handler: Any = rxd.traced(handle)
    with pytest.raises(HostileError):
        await handler(rxd.Task("x"))
    (span,) = SPANS.get_finished_spans()
    assert "HostileError: <no message: OSError>" == span.status.description
    (event,) = span.events
    attributes = dict(event.attributes or {})
    assert f"{__name__}.HostileError" == attributes["exception.type"]
    assert "raise HostileError" in str(attributes["exception.stacktrace"])


def test_pickling() -> None:
    """A decorated function is found by name; a wrapper pickles its function."""
    assert plain is pickle.loads(pickle.dumps(plain))
    again: Any = pickle.loads(pickle.dumps(rxd.traced(len)))
    assert "len" == again.__name__


async def test_as_an_operator() -> None:
    """``map`` adds the trace to a stream of tasks."""
    board = rxd.MemoryBoard[Any]("jobs")
    with trace.get_tracer("test").start_as_current_span("outer"):
        stream = reactivex.of(rxd.Task(1), rxd.Task(2)).pipe(rx.map(rxd.inject_trace))
        await rxd.run(stream.pipe(ops.submit(board)))
    claims = await board.claim(5)
    assert [True, True] == ["traceparent" in claim.task.headers for claim in claims]


async def test_between_processes() -> None:
    """The context travels through a server to another process."""
    code = (
        "import asyncio, sys, rxdispatch as rxd\n"
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "trace.set_tracer_provider(TracerProvider())\n"
        "async def main():\n"
        "    async with rxd.connect(sys.argv[1]) as hub:\n"
        "        with trace.get_tracer('t').start_as_current_span('outer') as span:\n"
        "            await hub.board('jobs').submit(rxd.inject_trace(rxd.Task('x')))\n"
        "            print(span.get_span_context().trace_id)\n"
        "asyncio.run(main())\n"
    )
    async with valkey_server() as server:
        url = server.target.safe
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, url, stdout=subprocess.PIPE
        )
        out, _ = await process.communicate()
        async with rxd.connect(url) as hub:
            await work(hub.board("jobs"), plain_async)
    (span,) = SPANS.get_finished_spans()
    assert int(out) == ids(span).trace_id


@rxd.traced
async def plain_async(task: rxd.Task[Any]) -> None:
    """Do nothing."""


def test_with_the_api_alone() -> None:
    """Nothing is recorded, but the calls of a handler see the context of its task."""
    code = (
        "import asyncio, rxdispatch as rxd\n"
        "parent = '00-' + 'ab' * 16 + '-' + 'cd' * 8 + '-01'\n"
        "async def handle(task): return rxd.inject_trace(rxd.Task(1)).headers['traceparent']\n"
        "task = rxd.Task(0, headers={'traceparent': parent})\n"
        "assert asyncio.run(rxd.traced(handle)(task)) == parent\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_bad_arguments() -> None:
    """Bad arguments are refused at once."""
    with pytest.raises(rxd.ConfigError, match="handler must be callable"):
        rxd.traced("x")  # type: ignore[type-var]
    with pytest.raises(rxd.ConfigError, match="baggage must be a bool"):
        rxd.traced(len, baggage="no")  # type: ignore[arg-type]
    with pytest.raises(rxd.ConfigError, match="task must be a Task"):
        rxd.inject_trace("x")  # type: ignore[arg-type]
