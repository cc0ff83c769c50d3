"""Scripts are read once, and identified by their hash."""

from __future__ import annotations

from hashlib import sha1

import pytest

from rxdispatch.store.scripts import Script, load_script

PACKAGE = "rxdispatch.boards.redis"


def test_the_hash_is_the_servers() -> None:
    """EVALSHA finds a script by the SHA-1 of its text."""
    assert sha1(b"return 1").hexdigest() == Script("return 1").sha


def test_files_are_put_together_once() -> None:
    """Files are joined in the given order, and the same names give the same object."""
    both = load_script(PACKAGE, "prelude", "claim")
    parts = (load_script(PACKAGE, name).text for name in ("prelude", "claim"))
    assert "\n".join(parts) == both.text
    assert both is load_script(PACKAGE, "prelude", "claim")


def test_a_missing_file() -> None:
    """The error names the file."""
    with pytest.raises(FileNotFoundError, match=r"missing\.lua"):
        load_script(PACKAGE, "missing")
