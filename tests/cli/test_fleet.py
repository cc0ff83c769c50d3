"""The events of a simulated fleet, without a server and without waiting."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from rxdispatch.cli.nodes.simulated_fleet import SimulatedFleet
from rxdispatch.errors import ConfigError


def fleet(size: int = 30, **other: Any) -> SimulatedFleet:
    """Return a fleet with fast churn."""
    options: dict[str, Any] = {
        "pools": ["cpu", "gpu"],
        "capacity": 8,
        "churn": 0.1,
        "interval": 2.0,
        "ttl": 6.0,
        "seed": 7,
    }
    return SimulatedFleet(size, **{**options, **other})


class Server:
    """A stand-in for the registry, which records its nodes."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.draining: set[str] = set()
        self.beats: dict[str, list[float]] = {}
        self.loads: set[float] = set()

    def serve(self, simulated: SimulatedFleet, now: float) -> None:
        """Carry out the events of a step."""
        pending = simulated.pending
        self.known |= {*pending.register}
        self.draining |= {*pending.drain}
        self.known -= {*pending.remove}
        for node, state in pending.heartbeats.items():
            self.beats.setdefault(node, []).append(now)
            self.loads.add(state["load"])
        for part in (pending.register, pending.drain, pending.remove, pending.heartbeats):
            part.clear()


def play(simulated: SimulatedFleet, seconds: int, step: float = 0.5) -> Server:
    """Let the fleet run for some steps."""
    server = Server()
    for tick in range(int(seconds / step)):
        simulated.advance(tick * step)
        server.serve(simulated, tick * step)
    return server


def test_it_comes_at_once_in_pools_and_zones() -> None:
    """The first step registers all nodes, spread evenly over pools and zones."""
    simulated = fleet()
    simulated.advance(100.0)
    nodes = list(simulated.pending.register.values())
    assert 30 == len(nodes) == simulated.ready
    assert {("cpu", 15), ("gpu", 15)} == {
        (pool, sum(node.pool == pool for node in nodes)) for pool in ("cpu", "gpu")
    }
    places = {(node.pool, node.labels["zone"]) for node in nodes}
    assert 6 == len(places)
    assert {8} == {node.capacity for node in nodes}
    assert all(0 <= node.state["load"] <= 1 for node in nodes)


def test_its_size_stays_and_nothing_is_lost_count_of() -> None:
    """As many nodes come as go, and the registry has the same nodes as the fleet."""
    simulated = fleet()
    server = play(simulated, 60)
    events = simulated.events
    assert 30 == simulated.ready
    # Three nodes come each second, except in the first one.
    assert 3 * 59 == events.came - 30
    gone = events.died + events.went + simulated.draining
    assert events.came == simulated.ready + gone
    assert min(events.died, events.drained, events.went) > 20
    assert {*simulated.ids} == server.known
    assert len(server.draining) == events.drained


def test_the_same_seed_has_the_same_fates() -> None:
    """The number of steps per second does not matter; another seed gives other events."""
    slow, fast, other = fleet(), fleet(), fleet(seed=8)
    assert play(slow, 20, 0.5).known == play(fast, 20, 0.25).known
    assert slow.events == fast.events
    assert play(other, 20).known != {*slow.ids}


def test_small_shares_add_up() -> None:
    """Half a node per second is one node every two seconds, not none."""
    simulated = fleet(32, churn=1 / 64)
    play(simulated, 101)
    assert 50 == simulated.events.came - 32


def test_heartbeats_take_turns() -> None:
    """Each node sends one heartbeat per interval, but not all at the same moment."""
    server = play(fleet(churn=0.0), 20)
    assert 30 == len(server.beats)
    for beats in server.beats.values():
        assert {2.0} == {later - sooner for sooner, later in pairwise(beats)}
    assert 4 == len({beats[0] % 2 for beats in server.beats.values()})
    assert len(server.loads) > 20


def test_the_dead_are_silent_until_they_are_forgotten() -> None:
    """A dead node sends no heartbeat, and is finally removed."""
    simulated = fleet(churn=1.0, size=6)
    simulated.advance(0.0)
    known = {*simulated.pending.register}
    simulated.pending.register.clear()
    simulated.advance(1.0)
    dead = known - {*simulated.pending.drain} - {*simulated.pending.remove}
    assert len(dead) == simulated.events.died > 0
    server = play(simulated, 10)
    assert dead.isdisjoint(server.beats)
    assert dead <= {*simulated.ids}
    for second in range(400):
        simulated.advance(20.0 + second)
        server.serve(simulated, 20.0 + second)
    assert dead.isdisjoint(simulated.ids)


def test_a_break_is_not_made_up_for() -> None:
    """After an hour without a step, one second's events happen, and each node sends a heartbeat."""
    simulated = fleet()
    play(simulated, 5)
    came = simulated.events.came
    simulated.advance(3600.0)
    assert 3 == simulated.events.came - came
    assert len(simulated.pending.heartbeats) <= simulated.ready + simulated.draining


def test_who_is_lost_comes_back() -> None:
    """When the registry has lost everything, ready nodes register again; drained nodes do not."""
    simulated = fleet()
    play(simulated, 5)
    assert simulated.draining
    known = simulated.ids
    simulated.lost(known)
    assert 30 == len(simulated.pending.register) == simulated.events.lost
    assert 0 == simulated.draining


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("nodes must", {"size": 0}),
        ("nodes must", {"size": True}),
        ("pools must be different", {"pools": []}),
        ("pools must be different", {"pools": ["a", "a"]}),
        ("pool must", {"pools": [""]}),
        ("capacity must", {"capacity": -1}),
        ("churn must", {"churn": 1.5}),
        ("churn must", {"churn": float("nan")}),
        ("interval must", {"interval": 0.0}),
        ("interval must", {"interval": 6.0}),
    ],
)
def test_bad_arguments(rule: str, options: dict[str, Any]) -> None:
    """Each error states its rule."""
    with pytest.raises(ConfigError, match=rule):
        fleet(**options)
