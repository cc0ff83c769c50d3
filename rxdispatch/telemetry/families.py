"""``Families``: the Prometheus metric families, with their labels and samples."""

from __future__ import annotations

from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric

from rxdispatch.node import Mode
from rxdispatch.operators.flow._meter import Measurement
from rxdispatch.results import BoardStats
from rxdispatch.telemetry.kind_counts import KindCounts
from rxdispatch.telemetry.readings import BoardReading, FeedReading

__all__ = ["Families"]

_COUNTERS: Final = {
    "board_done": ("Tasks done since the board began, by any worker.", "board"),
    "board_events": ("Task events that this process received.", "board", "kind", "task_kind"),
    "board_settled": ("Claims that this process settled.", "board", "task_kind"),
    "board_refused": (
        "Settlements of this process that were refused: the claim was lost.",
        "board",
    ),
    "board_lost": ("Claims that this process found lost on renewal.", "board"),
    "board_undelivered": (
        "Tasks that this process found handed to a worker that did not confirm them.",
        "board",
    ),
    "board_epochs": ("Servers that took over the board, as this process has seen.", "board"),
    "feed_reads": ("Reads of nodes, by the tier that answered.", "feed", "tier"),
    "feed_messages": ("Messages applied.", "feed"),
    "feed_malformed": ("Messages or rows that could not be parsed.", "feed"),
    "feed_gaps": ("Gaps noticed in the sequence of messages.", "feed"),
    "feed_catch_ups": ("Catch-ups: fetches of missed messages.", "feed"),
    "feed_relists": ("Relists: reads of the whole fleet.", "feed"),
    "feed_reconnects": ("New subscriptions after a lost connection.", "feed"),
    "feed_mode_switches": ("Changes of mode.", "feed"),
    "feed_check_timeouts": ("Fetches that the server did not answer in time.", "feed"),
    "feed_redis_calls": ("Calls that the server answered.", "feed"),
    "meter_entered": ("Items that went in.", "meter"),
    "meter_left": ("Items that came out.", "meter"),
    "meter_completed": ("Streams that completed.", "meter"),
    "meter_errors": ("Streams that failed.", "meter"),
}

_GAUGES: Final = {
    "board_up": ("1 if the last reading of the board succeeded, else 0.", "board"),
    "board_tasks": ("Tasks by mark.", "board", "mark"),
    "board_unfinished": ("Scheduled, ready and claimed tasks.", "board", "task_kind"),
    "board_kinds": ("Kinds that have unfinished tasks.", "board"),
    "board_lag_seconds": ("Age of the oldest ready task.", "board"),
    "feed_nodes": ("Nodes by status.", "feed", "status"),
    "feed_mode": ("1 for the current mode of the feed, else 0.", "feed", "mode"),
    "feed_staleness_seconds": ("Time since the last proof that no message was missed.", "feed"),
    "feed_redis_latency_seconds": ("Latency of the last 1,024 calls.", "feed", "quantile"),
    "meter_streams": ("Subscriptions.", "meter"),
    "meter_in_flight": ("Items between entry and exit.", "meter"),
    "meter_entered_per_second": ("Rate of items that went in, over the last 5 to 10 s.", "meter"),
    "meter_left_per_second": ("Rate of items that came out, over the last 5 to 10 s.", "meter"),
    "meter_latency_max_seconds": ("The longest time from entry to exit.", "meter"),
}

_FEED_COUNTERS: Final = (
    "messages",
    "malformed",
    "gaps",
    "catch_ups",
    "relists",
    "reconnects",
    "mode_switches",
    "check_timeouts",
)


class Families:
    """The families of one scrape; the sources add their samples."""

    def __init__(self) -> None:
        self._all: dict[str, Metric] = {
            name: CounterMetricFamily(f"rxdispatch_{name}", about, labels=labels)
            for name, (about, *labels) in _COUNTERS.items()
        }
        for name, (about, *labels) in _GAUGES.items():
            self._all[name] = GaugeMetricFamily(f"rxdispatch_{name}", about, labels=labels)
        self._all["meter_latency_seconds"] = SummaryMetricFamily(
            "rxdispatch_meter_latency_seconds", "Time from entry to exit.", labels=["meter"]
        )

    def __iter__(self) -> Any:
        return iter(self._all.values())

    def add(self, name: str, value: float, *labels: str) -> None:
        """Add a sample."""
        family: Any = self._all[name]
        family.add_metric([_shown(label) for label in labels], value)

    def board(
        self, name: str, reading: BoardReading | None, stats: BoardStats, kinds: KindCounts
    ) -> None:
        """Add a board; *reading* is None if the board could not be read."""
        self.add("board_up", reading is not None, name)
        for label, row in kinds.rows.items():
            self.add("board_settled", row.settled, name, label)
            for kind, times in row.events.items():
                self.add("board_events", times, name, kind, label)
            if reading is not None:
                self.add("board_unfinished", row.unfinished, name, label)
        self.add("board_refused", stats.refused, name)
        self.add("board_lost", stats.lost, name)
        self.add("board_undelivered", stats.undelivered, name)
        self.add("board_epochs", stats.epochs, name)
        if reading is not None:
            counts = reading.counts
            for mark in ("scheduled", "ready", "claimed", "dead"):
                self.add("board_tasks", getattr(counts, mark), name, mark)
            self.add("board_done", counts.done, name)
            self.add("board_lag_seconds", reading.lag, name)
            self.add("board_kinds", len(reading.kinds), name)

    def feed(self, name: str, reading: FeedReading, now: Mode) -> None:
        """Add a feed, whose mode is *now*."""
        stats = reading.stats
        for status, many in reading.statuses.items():
            self.add("feed_nodes", many, name, status.value)
        for mode in Mode:
            self.add("feed_mode", now is mode, name, mode.value)
        for tier in ("l1", "l2", "redis", "stale"):
            self.add("feed_reads", getattr(stats, f"hits_{tier}"), name, tier)
        self.add("feed_reads", stats.misses, name, "miss")
        for counter in _FEED_COUNTERS:
            self.add(f"feed_{counter}", getattr(stats, counter), name)
        self.add("feed_staleness_seconds", stats.staleness, name)
        self.add("feed_redis_calls", stats.redis.count, name)
        for quantile in ("0.5", "0.95", "0.99"):
            value = getattr(stats.redis, f"p{round(float(quantile) * 100)}")
            self.add("feed_redis_latency_seconds", value, name, quantile)

    def meter(self, name: str, reading: Measurement) -> None:
        """Add a meter."""
        for counter in ("entered", "left", "completed", "errors", "streams", "in_flight"):
            self.add(f"meter_{counter}", getattr(reading, counter), name)
        self.add("meter_entered_per_second", reading.rate_in, name)
        self.add("meter_left_per_second", reading.rate, name)
        latency = reading.latency
        self.add("meter_latency_max_seconds", latency.maximum, name)
        family: Any = self._all["meter_latency_seconds"]
        family.add_metric([_shown(name)], latency.count, latency.count * latency.mean)
        if latency.count:
            labels = {"meter": _shown(name)}
            for quantile, value in (("0.5", latency.p50), ("0.99", latency.p99)):
                family.add_sample(family.name, {**labels, "quantile": quantile}, value)


def _shown(label: str) -> str:
    # A name may hold characters that UTF-8 cannot encode; they must not fail the scrape.
    return label.encode("utf-8", "backslashreplace").decode()
