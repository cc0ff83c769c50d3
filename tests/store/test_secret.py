"""A ``Secret`` shows its string only when asked."""

from __future__ import annotations

import pickle

import pytest

from rxdispatch.store.secret import Secret


def test_it_does_not_show_itself() -> None:
    """Neither its text forms nor its attributes contain the string."""
    secret = Secret("open sesame")
    assert ["***", "***", "***"] == [repr(secret), str(secret), f"{secret}"]
    assert not hasattr(secret, "__dict__")
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_it_compares_by_value() -> None:
    """Two secrets with the same string are equal."""
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert hash(Secret("a")) == hash(Secret("a"))
