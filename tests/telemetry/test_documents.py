"""The dashboard, the alerts and the reference name the existing metrics."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

import rxdispatch as rxd
from rxdispatch.telemetry.families import Families
from rxdispatch.testing import run_virtual
from tests.docs.examples import ROOT

DASHBOARD = ROOT / "docs" / "grafana" / "rxdispatch.json"
ALERTS = ROOT / "docs" / "prometheus" / "alerts.yml"
REFERENCE = ROOT / "docs" / "reference" / "telemetry.md"


def exported(*, every_sample: bool) -> set[str]:
    """Return the names of the samples."""
    names: set[str] = set()
    for family in Families():
        if family.type == "counter":
            names.add(f"{family.name}_total")
        else:
            names.add(family.name)
        if every_sample and family.type == "summary":
            names |= {f"{family.name}_sum", f"{family.name}_count"}
    return names


def named(path: Path) -> set[str]:
    """Return the metrics that a file names."""
    return set(re.findall(r"\brxdispatch_\w+", path.read_text("utf-8")))


@pytest.mark.parametrize("path", [DASHBOARD, ALERTS], ids=lambda path: path.name)
def test_names(path: Path) -> None:
    """Every metric in a query is exported."""
    assert named(path)
    assert set() == named(path) - exported(every_sample=True)


def test_reference() -> None:
    """Every metric has a row, and every row is about a metric."""
    assert exported(every_sample=False) == named(REFERENCE)


def test_a_scrape_has_what_the_families_promise() -> None:
    """The names in the scrape are those that the families announce."""

    async def main() -> str:
        registry = CollectorRegistry()
        async with rxd.Metrics(registry) as metrics:
            metrics.watch_board(rxd.MemoryBoard[Any]("jobs"), events=True)
            await metrics.refresh()
            return generate_latest(registry).decode()

    found = set(re.findall(r"^(rxdispatch_\w+)[{ ]", run_virtual(main()), re.MULTILINE))
    boards = {name for name in exported(every_sample=True) if "_board_" in name}
    assert boards == found


def test_rules_of_prometheus() -> None:
    """Counters end with ``_total``, and measured values with their base unit."""
    for name in exported(every_sample=False):
        assert re.fullmatch(r"rxdispatch_(board|feed|meter)_[a-z_]+", name)
        assert not re.search(r"_(ms|millis|milliseconds|minutes|percent)\b", name)
    timed = [name for name in exported(every_sample=False) if re.search("lag|latency|stale", name)]
    assert all(name.endswith("_seconds") for name in timed)


def test_dashboard() -> None:
    """The dashboard is JSON, every panel has a query, and no panel overlaps another."""
    board = json.loads(DASHBOARD.read_text("utf-8"))
    assert "rxdispatch" == board["uid"]
    places: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        assert panel["targets"]
        assert all("rxdispatch_" in target["expr"] for target in panel["targets"])
        places.add((panel["gridPos"]["x"], panel["gridPos"]["y"]))
    assert len(board["panels"]) == len(places)


def test_alerts() -> None:
    """Each kind of problem has an alert, and each alert says what to do."""
    text = ALERTS.read_text("utf-8")
    names = re.findall(r"- alert: (\w+)", text)
    assert {
        "RxdispatchLagTooOld",
        "RxdispatchDeadLettersGrowing",
        "RxdispatchDuplicates",
        "RxdispatchFeedNotNormal",
        "RxdispatchNoWorkers",
        "RxdispatchNoNodes",
        "RxdispatchBoardUnreadable",
    } == set(names)
    for part in ("expr:", "summary:", "action:", "severity:"):
        assert len(names) == text.count(part)
    assert [] == re.findall(r"\t", text)
