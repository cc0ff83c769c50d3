"""``Relay`` is hot, and its subscribers cannot harm each other."""

from __future__ import annotations

from reactivex.abc import DisposableBase

from rxdispatch.relay import Relay


def test_only_who_is_there_hears() -> None:
    """A subscriber gets only what is emitted while it is subscribed; nothing is kept."""
    relay: Relay[int] = Relay("r")
    early: list[int] = []
    late: list[int] = []
    relay.emit(0)
    with relay.observable.subscribe(early.append):
        relay.emit(1)
        relay.observable.subscribe(late.append)
        relay.emit(2)
    relay.emit(3)
    assert [1, 2] == early
    assert [2, 3] == late


def test_the_first_and_the_last() -> None:
    """A source can start with the first subscriber and stop with the last."""
    heard: list[str] = []
    relay: Relay[int] = Relay(
        "r", on_first=lambda: heard.append("first"), on_last=lambda: heard.append("last")
    )
    assert not relay.active
    with relay.observable.subscribe(), relay.observable.subscribe():
        assert relay.active
        assert ["first"] == heard
    assert not relay.active
    assert ["first", "last"] == heard
    relay.observable.subscribe().dispose()
    assert ["first", "last"] * 2 == heard


def test_one_that_raises() -> None:
    """A subscriber that raises is unsubscribed and gets the error; the others get all values."""
    relay: Relay[int] = Relay("r")
    before: list[int] = []
    after: list[int] = []
    errors: list[Exception] = []

    def fail(value: int) -> None:
        raise ValueError(value)

    relay.observable.subscribe(before.append)
    relay.observable.subscribe(fail, errors.append)
    relay.observable.subscribe(after.append)
    relay.emit(1)
    relay.emit(2)
    assert [1, 2] == before == after
    assert ["1"] == [str(error) for error in errors]


def test_completion() -> None:
    """Each subscriber sees the completion once, and nothing afterwards."""
    relay: Relay[int] = Relay("r")
    heard: list[str] = []

    def listen(name: str) -> None:
        relay.observable.subscribe(
            lambda value: heard.append(f"{name}{value}"), on_completed=lambda: heard.append(name)
        )

    listen("a")
    listen("b")
    relay.emit(1)
    relay.complete()
    relay.emit(2)
    relay.complete()
    assert ["a1", "b1", "a", "b"] == heard
    assert not relay.active


def test_leaving_while_a_value_is_handed_out() -> None:
    """A subscriber that another one disposes gets nothing more, not even the current value."""
    relay: Relay[int] = Relay("r")
    heard: list[int] = []
    others: list[DisposableBase] = []
    relay.observable.subscribe(lambda _: others[0].dispose())
    others.append(relay.observable.subscribe(heard.append))
    relay.emit(1)
    relay.emit(2)
    assert [] == heard


def test_joining_while_a_value_is_handed_out() -> None:
    """A subscriber that joins meanwhile gets the next value first."""
    relay: Relay[int] = Relay("r")
    heard: list[int] = []

    def join(value: int) -> None:
        if value == 1:
            relay.observable.subscribe(heard.append)

    relay.observable.subscribe(join)
    relay.emit(1)
    relay.emit(2)
    assert [2] == heard
