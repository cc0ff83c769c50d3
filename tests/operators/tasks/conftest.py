"""The tests here run on virtual time, unless a module says otherwise."""

from __future__ import annotations

import pytest

from rxdispatch.testing import VirtualTimeLoop


@pytest.fixture(autouse=True)
def loop_factory() -> type[VirtualTimeLoop]:
    return VirtualTimeLoop
