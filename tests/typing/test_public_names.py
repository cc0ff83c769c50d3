"""The public API as a user's type checker sees it; mypy and pyright check this file too."""

from __future__ import annotations

from importlib.resources import files

import rxdispatch


def test_the_package_says_that_it_is_typed() -> None:
    """Without the marker, a user's type checker would take every name for Any."""
    assert files(rxdispatch).joinpath("py.typed").is_file()
