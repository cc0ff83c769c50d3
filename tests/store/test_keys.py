"""The names of keys: one hash tag per board, and different tags for different boards."""

from __future__ import annotations

import itertools

from rxdispatch.boards.redis.keys import BoardKeys
from rxdispatch.nodes.keys import FleetKeys


def test_names_share_one_hash_tag() -> None:
    """All keys and channels of a board are in one slot of a cluster."""
    names = BoardKeys.of("rxd", "jobs")
    assert b"{rxd:jobs}:ready" == names.key("ready")
    assert all(name.startswith(b"{rxd:jobs}:") for name in (names.events, names.joined))


def test_namespaces_are_apart() -> None:
    """Both a namespace and the name of a board may contain a colon."""
    parts = ("a", "b", "a:b", "b:a", "a%3Ab", "a%", "%3A")
    tags = {BoardKeys.of(space, board).tag for space, board in itertools.product(parts, parts)}
    assert len(parts) ** 2 == len(tags)


def test_a_fleet_is_no_board() -> None:
    """The keys of a fleet share one hash tag too, and differ from those of any board."""
    fleet = FleetKeys.of("rxd")
    assert all(name.startswith(b"{rxd}:fleet:") for name in (*fleet.keys, fleet.changes))
    assert len(fleet.keys) + 1 == len({*fleet.keys, fleet.changes})
    for name in ("fleet", "", ":fleet", "}:fleet", "rxd"):
        board = BoardKeys.of("rxd", name)
        names = (*fleet.keys, fleet.changes)
        assert not [taken for taken in names if taken.startswith(board.tag)]


def test_fleets_of_namespaces_are_apart() -> None:
    """The keys of two fleets differ, even if a namespace contains a colon."""
    spaces = ("a", "b", "a:b", "a%3Ab", "a%", "%3A", "a:fleet")
    assert len(spaces) == len({FleetKeys.of(space).changes for space in spaces})


def test_databases_have_channels_of_their_own() -> None:
    """A server separates the keys of its databases, but not their channels."""
    boards = [BoardKeys.of("rxd", "jobs", db) for db in (0, 1, 11)]
    fleets = [FleetKeys.of("rxd", db) for db in (0, 1, 11)]
    channels = {name for board in boards for name in (board.events, board.joined)}
    assert 9 == len(channels | {fleet.changes for fleet in fleets})
    assert 1 == len({board.tag for board in boards}) == len({fleet.keys for fleet in fleets})
    assert BoardKeys.of("rxd", "jobs") == boards[0]
    assert b"{rxd:jobs}:events@11" == boards[2].events
