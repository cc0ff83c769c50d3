"""``dead_letter``: the sink gets dead outcomes, and nothing else changes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import reactivex
from reactivex.subject import Subject
from structlog.testing import capture_logs

from rxdispatch.claim import Outcome
from rxdispatch.errors import ConfigError, TaskExecutionError
from rxdispatch.operators.tasks._dead_letter import dead_letter
from rxdispatch.task import Task
from rxdispatch.testing import Probe
from tests.operators.tasks.places import Hand, Result, ids, place


async def found(*statuses: Any) -> list[Result]:
    """Return one outcome of each status, with different ids."""
    board, _ = place()
    await board.submit([Task({"n": n}, id=f"{n}-{s}") for n, s in enumerate(statuses)])
    claims = await board.claim(99)
    return [Outcome(c, s) for c, s in zip(claims, statuses, strict=True)]


async def test_all_pass_and_the_dead_are_handed_on() -> None:
    """A callable gets the dead outcomes in the order of the deaths."""
    items = await found("done", "dead", "retry", "released", "lost", "dead")
    told: list[Result] = []
    log = Probe()
    reactivex.from_iterable(items).pipe(dead_letter(told.append)).subscribe(log)
    assert [*items, "|"] == log.notifications
    assert ["1-dead", "5-dead"] == ids(told)


async def test_a_subject_is_told_but_not_ended() -> None:
    """A subject as the sink may serve other streams as well."""
    sink: Subject[Result] = Subject()
    log = Probe()
    sink.subscribe(log)
    operator = dead_letter(sink)
    for _ in range(2):
        reactivex.from_iterable(await found("done", "dead")).pipe(operator).subscribe(Probe())
    reactivex.throw(OSError("x")).pipe(operator).subscribe(Probe())
    assert ["1-dead", "1-dead"] == ids(log.notifications)
    assert 2 == len(log.notifications)


async def test_the_end_passes_through() -> None:
    """Errors and disposal pass through as well."""
    error = OSError("x")
    hand, log = Hand(), Probe()
    subscription = hand.stream().pipe(dead_letter(lambda _: None)).subscribe(log)
    subscription.dispose()
    assert 1 == hand.disposed
    hand = Hand()
    hand.stream().pipe(dead_letter(lambda _: None)).subscribe(log)
    hand.fail(error)
    assert [error] == log.notifications


async def test_a_sink_that_raises_is_logged() -> None:
    """The stream goes on, and the sink gets later outcomes."""
    told: list[str] = []

    def sink(outcome: Result) -> None:
        told.append(outcome.claim.task.id)
        raise ValueError("x")

    items = await found("dead", "done", "dead")
    log = Probe()
    with capture_logs() as logs:
        reactivex.from_iterable(items).pipe(dead_letter(sink)).subscribe(log)
    assert [*items, "|"] == log.notifications
    assert ["0-dead", "2-dead"] == told
    assert [("dead_letter_sink_failed", "0-dead"), ("dead_letter_sink_failed", "2-dead")] == [
        (entry["event"], entry["task"]) for entry in logs
    ]


@pytest.mark.parametrize("kind", [str, Path])
async def test_a_path_gets_a_line_of_json_for_each(kind: Any, tmp_path: Path) -> None:
    """Earlier lines of the file are kept."""
    path = tmp_path / "dead.jsonl"
    path.write_text("before\n")
    items = await found("dead", "done", "dead", "dead")
    for n, reason in ((0, "failed"), (2, "crashed"), (3, "")):
        items[n].reason = reason
    items[0].error = TaskExecutionError("0-dead", 1)
    items[0].error.__cause__ = ValueError("bad\nline ü")
    items[2].error = OSError("plain")
    items[2].claim.crashes = 4
    reactivex.from_iterable(items).pipe(dead_letter(kind(path))).subscribe(Probe())
    before, *lines = path.read_text(encoding="utf-8").splitlines()
    assert "before" == before
    assert [
        {
            "id": "0-dead",
            "kind": "default",
            "payload": {"n": 0},
            "reason": "failed",
            "error": "ValueError: bad\nline ü",
            "traceback": "ValueError: bad\nline ü",
            "attempts": 1,
            "crashes": 0,
        },
        {
            "id": "2-dead",
            "kind": "default",
            "payload": {"n": 2},
            "reason": "crashed",
            "error": "OSError: plain",
            "traceback": "OSError: plain",
            "attempts": 1,
            "crashes": 4,
        },
        {
            "id": "3-dead",
            "kind": "default",
            "payload": {"n": 3},
            "reason": "",
            "error": "",
            "traceback": "",
            "attempts": 1,
            "crashes": 0,
        },
    ] == [json.loads(line) for line in lines]


async def test_the_file_may_be_rotated(tmp_path: Path) -> None:
    """The sink opens the file again for each line."""
    path = tmp_path / "dead.jsonl"
    hand = Hand()
    hand.stream().pipe(dead_letter(path)).subscribe(Probe())
    for name in ("a", "b"):
        hand.push(*await found("dead"))
        path.rename(tmp_path / name)
    assert 1 == len((tmp_path / "a").read_text().splitlines())
    assert 1 == len((tmp_path / "b").read_text().splitlines())


async def test_an_id_that_is_no_text_can_be_written(tmp_path: Path) -> None:
    """Characters that JSON cannot hold are replaced."""
    path = tmp_path / "dead.jsonl"
    (outcome,) = await found("dead")
    outcome.claim.task = Task(1, id="a\udcffb")
    reactivex.of(outcome).pipe(dead_letter(path)).subscribe(Probe())
    assert "a?b" == json.loads(path.read_text())["id"]


@pytest.mark.parametrize("sink", [5, None, ["x"]])
def test_bad_sinks(sink: Any) -> None:
    """Bad sinks are refused when the operator is made."""
    with pytest.raises(ConfigError) as caught:
        dead_letter(sink)
    assert f"sink must be an observer, a callable or a path, got {sink!r}" == str(caught.value)


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    """The error comes when the operator is made, not at the first death."""
    path = tmp_path / "none" / "dead.jsonl"
    with pytest.raises(ConfigError) as caught:
        dead_letter(path)
    assert f"sink must be a path in a folder that exists, got {str(path)!r}" == str(caught.value)


async def test_a_file_that_others_cannot_read(tmp_path: Path) -> None:
    """The file contains payloads, so it has mode 0600 whatever the umask is."""
    path = tmp_path / "dead.jsonl"
    before = os.umask(0)
    try:
        reactivex.from_iterable(await found("dead")).pipe(dead_letter(path)).subscribe(Probe())
    finally:
        os.umask(before)
    assert 0o600 == path.stat().st_mode & 0o777


async def test_a_link_in_place_of_the_file(tmp_path: Path) -> None:
    """A link is refused when the operator is made, and later by the sink that writes."""
    target, path = tmp_path / "authorized_keys", tmp_path / "dead.jsonl"
    operator = dead_letter(path)
    path.symlink_to(target)
    with pytest.raises(ConfigError, match="sink must not be a symbolic link"):
        dead_letter(path)
    log = Probe()
    items = await found("dead")
    with capture_logs() as logs:
        reactivex.from_iterable(items).pipe(operator).subscribe(log)
    assert [*items, "|"] == log.notifications
    assert ["dead_letter_sink_failed"] == [entry["event"] for entry in logs]
    assert not target.exists()
