"""``MetricsCollector``: the object that the Prometheus client asks for samples at a scrape."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from rxdispatch.telemetry.families import Families
from rxdispatch.telemetry.sources import MetricsSource

__all__ = ["MetricsCollector"]


class MetricsCollector(Collector):
    """
    The collector that is registered with Prometheus.

    Args:
        sources: The watched sources; more may be added later.
    """

    def __init__(self, sources: Iterable[MetricsSource]) -> None:
        self._sources = sources

    def describe(self) -> Iterable[Metric]:
        """Return the families without samples, so that registering reads nothing."""
        return tuple(Families())

    def collect(self) -> Iterable[Metric]:
        """Return the families as of the last reading."""
        families = Families()
        for source in tuple(self._sources):
            source.fill(families)
        return tuple(families)
