"""Every operator of RxPY on a source, for the table of their effects on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import attrs
import reactivex
from reactivex import operators
from reactivex.scheduler import CurrentThreadScheduler
from reactivex.scheduler.eventloop import AsyncIOScheduler
from reactivex.subject import Subject

__all__ = ["FORMS", "OTHERS", "Form"]

rx: Any = operators
# Any is enough: there are many operators, and no test here is about their types.
Stream = Any


@attrs.frozen
class Form:
    """
    An operator on a source.

    Args:
        name: Its name in ``reactivex.operators``.
        build: Builds the stream from its source.
        timed: Whether the operator uses the clock.
        source: Which of its sources is measured, if it has several.
    """

    name: str
    build: Callable[[Stream], Stream]
    timed: bool = False
    source: str = ""


def _piped(name: str, *args: Any, timed: bool = False, **options: Any) -> Form:
    """Make the form of an operator that needs no special items."""
    operator: Callable[..., Any] = getattr(rx, name)

    def build(source: Stream) -> Stream:
        # Each subscription gets a new operator, as some keep items that they saw.
        return source.pipe(operator(*args, **options))

    return Form(name, build, timed)


def _after(name: str, first: Callable[[Stream], Stream], *args: Any) -> Form:
    """Make the form of an operator that needs items of a special kind, which *first* makes."""
    operator: Callable[..., Any] = getattr(rx, name)

    def build(source: Stream) -> Stream:
        return first(source).pipe(operator(*args))

    return Form(name, build)


def _never(*_: Any) -> Stream:
    return reactivex.never()


def _just(item: Any, *_: Any) -> Stream:
    return reactivex.just(item)


def _yes(*_: Any) -> bool:
    return True


def _no(*_: Any) -> bool:
    return False


def _same(item: Any, *_: Any) -> Any:
    return item


def _one(*_: Any) -> int:
    return 1


def _first(one: Any, *_: Any) -> Any:
    return one


def _empty(*_: Any) -> Stream:
    return reactivex.empty()


def _twice(item: Any) -> Any:
    return item, item


def _keyed(item: Any) -> Any:
    return {"key": item}


def _pairs(source: Stream) -> Stream:
    return source.pipe(rx.map(_twice))


def _dicts(source: Stream) -> Stream:
    return source.pipe(rx.map(_keyed))


def _streams(source: Stream) -> Stream:
    return source.pipe(rx.map(_just))


def _notes(source: Stream) -> Stream:
    return source.pipe(rx.materialize())


def _observe_on(source: Stream) -> Stream:
    return source.pipe(rx.observe_on(AsyncIOScheduler(asyncio.get_running_loop())))


def _future(source: Stream) -> Stream:
    loop = asyncio.get_running_loop()
    return reactivex.from_future(source.pipe(rx.to_future(loop.create_future)))


def _partition(source: Stream) -> Stream:
    return source.pipe(rx.partition(_yes))[0]


def _partition_indexed(source: Stream) -> Stream:
    return source.pipe(rx.partition_indexed(_yes))[0]


def _published(operator: Callable[[], Any]) -> Callable[[Stream], Stream]:
    def build(source: Stream) -> Stream:
        return source.pipe(operator(), rx.ref_count())

    return build


def _merged_groups(operator: Callable[[], Any]) -> Callable[[Stream], Stream]:
    def build(source: Stream) -> Stream:
        return source.pipe(operator(), rx.merge_all())

    return build


def _multicast(source: Stream) -> Stream:
    subject: Subject[Any] = Subject()
    return source.pipe(rx.multicast(subject), rx.ref_count())


def _expand(source: Stream) -> Stream:
    return source.pipe(rx.expand(_empty))


def _while(source: Stream) -> Stream:
    left = iter([True])

    def once(_: Any) -> bool:
        return next(left, False)

    return source.pipe(rx.while_do(once))


def _repeat(source: Stream) -> Stream:
    return source.pipe(rx.repeat(2))


FORMS: tuple[Form, ...] = (
    _piped("all", _yes),
    _piped("amb", reactivex.never()),
    _piped("as_observable"),
    _piped("average"),
    Form("buffer", lambda s: s.pipe(rx.buffer(reactivex.never()))),
    Form("buffer_when", lambda s: s.pipe(rx.buffer_when(_never))),
    Form("buffer_toggle", lambda s: s.pipe(rx.buffer_toggle(reactivex.just(1), _never))),
    _piped("buffer_with_count", 3),
    _piped("buffer_with_time", 1.0, timed=True),
    _piped("buffer_with_time_or_count", 1.0, 3, timed=True),
    _piped("catch", reactivex.never()),
    _piped("combine_latest", reactivex.just(1)),
    _piped("concat", reactivex.empty()),
    _after("concat_all", _streams),
    _piped("concat_map", _just),
    _piped("contains", -1),
    _piped("count"),
    _piped("debounce", 1.0, timed=True),
    _piped("throttle_with_timeout", 1.0, timed=True),
    _piped("default_if_empty"),
    _piped("delay_subscription", 1.0, timed=True),
    _piped("delay_with_mapper", _never),
    _after("dematerialize", _notes),
    _piped("delay", 1.0, timed=True),
    _piped("distinct"),
    _piped("distinct_until_changed"),
    Form("do", lambda s: s.pipe(rx.do(Subject[Any]()))),
    _piped("do_action", _one),
    _piped("do_while", _no),
    _piped("element_at", 100),
    _piped("element_at_or_default", 100),
    _after("exclusive", _streams),
    Form("expand", _expand),
    _piped("filter", _yes),
    _piped("filter_indexed", _yes),
    _piped("finally_action", _one),
    _piped("find", _no),
    _piped("find_index", _no),
    _piped("first", _no),
    _piped("first_or_default", _no),
    _piped("flat_map", _just),
    _piped("flat_map_indexed", _just),
    _piped("flat_map_latest", _just),
    _piped("fork_join", reactivex.just(1)),
    Form("group_by", _merged_groups(lambda: rx.group_by(_one))),
    Form("group_by_until", _merged_groups(lambda: rx.group_by_until(_one, None, _never))),
    Form("group_join", lambda s: s.pipe(rx.group_join(reactivex.just(1), _never, _never))),
    _piped("ignore_elements"),
    _piped("is_empty"),
    Form("join", lambda s: s.pipe(rx.join(reactivex.just(1), _never, _never))),
    _piped("last"),
    _piped("last_or_default"),
    _piped("map", _same),
    _piped("map_indexed", _same),
    _piped("materialize"),
    _piped("max"),
    _piped("max_by", _one),
    _piped("merge", reactivex.never()),
    _after("merge_all", _streams),
    _piped("min"),
    _piped("min_by", _one),
    Form("multicast", _multicast),
    Form("observe_on", _observe_on, timed=True),
    _piped("on_error_resume_next", reactivex.empty()),
    _piped("pairwise"),
    Form("partition", _partition),
    Form("partition_indexed", _partition_indexed),
    _after("pluck", _dicts, "key"),
    _piped("pluck_attr", "real"),
    Form("publish", _published(rx.publish)),
    Form("publish_value", _published(lambda: rx.publish_value(0))),
    _piped("reduce", max),
    Form("ref_count", lambda s: s.pipe(rx.publish(), rx.ref_count())),
    Form("repeat", _repeat),
    Form("replay", _published(rx.replay)),
    _piped("retry", 2),
    _piped("sample", 1.0, timed=True),
    _piped("scan", max),
    _piped("sequence_equal", reactivex.never()),
    _piped("share"),
    _piped("single", _no),
    _piped("single_or_default", _no),
    _piped("single_or_default_async", True),
    _piped("skip", 1),
    _piped("skip_last", 2),
    _piped("skip_last_with_time", 1.0, timed=True),
    _piped("skip_until", reactivex.just(1)),
    _piped("skip_until_with_time", 1.0, timed=True),
    _piped("skip_while", _no),
    _piped("skip_while_indexed", _no),
    _piped("skip_with_time", 1.0, timed=True),
    _piped("slice", 1, 100, 1),
    _piped("some", _no),
    _after("starmap", _pairs, _first),
    _after("starmap_indexed", _pairs, _first),
    _piped("start_with", 0),
    Form("subscribe_on", lambda s: s.pipe(rx.subscribe_on(CurrentThreadScheduler()))),
    _piped("sum"),
    _after("switch_latest", _streams),
    _piped("switch_map", _just),
    _piped("switch_map_indexed", _just),
    _piped("take", 100),
    _piped("take_last", 2),
    _piped("take_last_buffer", 2),
    _piped("take_last_with_time", 1.0, timed=True),
    _piped("take_until", reactivex.never()),
    _piped("take_until_with_time", 100.0, timed=True),
    _piped("take_while", _yes),
    _piped("take_while_indexed", _yes),
    _piped("take_with_time", 100.0, timed=True),
    _piped("tap", _one),
    _piped("throttle_first", 1.0, timed=True),
    _piped("throttle_with_mapper", _never),
    _piped("timestamp", timed=True),
    _piped("timeout", 100.0, timed=True),
    Form("timeout_with_mapper", lambda s: s.pipe(rx.timeout_with_mapper(_never(), _never))),
    _piped("time_interval", timed=True),
    _piped("to_dict", _same),
    Form("to_future", _future),
    _piped("to_iterable"),
    _piped("to_list"),
    _piped("to_marbles", 1.0, timed=True),
    _piped("to_set"),
    Form("while_do", _while),
    Form("window", _merged_groups(lambda: rx.window(reactivex.never()))),
    Form("window_when", _merged_groups(lambda: rx.window_when(_never))),
    Form("window_toggle", _merged_groups(lambda: rx.window_toggle(reactivex.just(1), _never))),
    Form("window_with_count", _merged_groups(lambda: rx.window_with_count(3))),
    Form("window_with_time", _merged_groups(lambda: rx.window_with_time(1.0)), timed=True),
    Form(
        "window_with_time_or_count",
        _merged_groups(lambda: rx.window_with_time_or_count(1.0, 3)),
        timed=True,
    ),
    _piped("with_latest_from", reactivex.just(1)),
    _piped("zip", reactivex.never()),
    _piped("zip_latest", reactivex.never()),
    _piped("zip_with_list", range(1000)),
    _piped("zip_with_iterable", range(1000)),
)
"""Each operator of RxPY once, on its source."""


def _from_one(name: str, *args: Any, source: str = "inner stream") -> Form:
    """Make the form whose source is the stream that an operator derives from an item."""
    operator: Callable[..., Any] = getattr(rx, name)
    first: Stream = reactivex.just(1)

    def build(inner: Stream) -> Stream:
        def made(*_: Any) -> Stream:
            return inner

        return first.pipe(operator(made, *args))

    return Form(name, build, source=source)


def _beside(
    name: str, first: Callable[[], Stream], *args: Any, source: str = "other source"
) -> Form:
    """Make the form in which the source is an argument of the operator."""
    operator: Callable[..., Any] = getattr(rx, name)

    def build(other: Stream) -> Stream:
        return first().pipe(operator(other, *args))

    return Form(name, build, source=source)


def _fails() -> Stream:
    return reactivex.throw(OSError("away"))


def _only(item: Any) -> Stream:
    return reactivex.just(item)


def _and_never(item: Any) -> Stream:
    return reactivex.concat(_only(item), _never())


def _queue(source: Stream) -> Stream:
    return source.pipe(
        rx.map(_and_never),
        rx.merge(max_concurrent=1),
    )


def _merge_all(inner: Stream) -> Stream:
    return _only(inner).pipe(rx.merge_all())


OTHERS: tuple[Form, ...] = (
    _beside("amb", _never),
    _beside("buffer", _never, source="boundaries"),
    _beside("catch", _fails, source="next source"),
    _beside("combine_latest", lambda: reactivex.just(1)),
    _beside("concat", reactivex.empty, source="next source"),
    _from_one("concat_map"),
    _from_one("delay_with_mapper", source="delay of an item"),
    _from_one("flat_map"),
    _from_one("flat_map_indexed"),
    _from_one("flat_map_latest"),
    _beside("merge", _never),
    Form("merge", _queue, source="streams, with max_concurrent=1"),
    Form(
        "merge",
        lambda inner: _only(inner).pipe(rx.merge(max_concurrent=1)),
        source="inner stream, with max_concurrent=1",
    ),
    Form("merge_all", _merge_all, source="inner stream"),
    _beside("on_error_resume_next", _fails, source="next source"),
    _beside("sample", _never, source="sampler"),
    _beside("sequence_equal", _never),
    _beside("skip_until", _never, source="signal"),
    Form(
        "switch_latest",
        lambda inner: _only(inner).pipe(rx.switch_latest()),
        source="inner stream",
    ),
    _from_one("switch_map"),
    _beside("take_until", _never, source="signal"),
    _beside("window", _never, source="boundaries"),
    _beside("with_latest_from", _never),
    _beside("zip", _never),
    _beside("zip_latest", _never),
)
"""Operators again, measured at their other sources: arguments and inner streams."""
