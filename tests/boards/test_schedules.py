"""On a server: random schedules of several workers keep what the protocol promises."""

from __future__ import annotations

import pytest

from tests.boards.places import Place
from tests.boards.schedules import run_schedules

PARTS = 10
EACH = 20


@pytest.mark.parametrize("part", range(PARTS))
async def test_random_schedules(server: Place, part: int) -> None:
    """No task is lost or held twice, nobody has more than its prefetch, and all is done once."""
    async with server.bench() as bench:
        await run_schedules(bench, range(part * EACH, (part + 1) * EACH))
