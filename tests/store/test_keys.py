"""The names of keys: one hash tag a board, and no two boards with the same."""

from __future__ import annotations

import itertools

from rxdispatch.store.keys import BoardKeys


def test_names_share_one_hash_tag() -> None:
    """All keys and channels of a board are in one slot of a cluster."""
    names = BoardKeys.of("rxd", "jobs")
    assert all(key.startswith(b"{rxd:jobs}:") for key in (*names.keys, names.events, names.hints))


def test_namespaces_are_apart() -> None:
    """A colon may stand in a namespace as well as in the name of a board."""
    parts = ("a", "b", "a:b", "b:a", "a%3Ab", "a%", "%3A")
    tags = {BoardKeys.of(space, board).replies for space, board in itertools.product(parts, parts)}
    assert len(parts) ** 2 == len(tags)
