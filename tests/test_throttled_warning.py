"""``ThrottledWarning`` logs the first warning at once, the rest in one entry a second."""

from __future__ import annotations

import asyncio

import structlog

from rxdispatch.log import get_logger
from rxdispatch.testing import run_virtual
from rxdispatch.throttled_warning import ThrottledWarning


def test_a_flood() -> None:
    """A thousand warnings make two entries; after a quiet second the next is logged at once."""

    async def main() -> list[int]:
        warning = ThrottledWarning(get_logger("test"), "strange")
        with structlog.testing.capture_logs() as logs:
            for n in range(1000):
                warning.tell(f"reason {n}")
            await asyncio.sleep(0.9)
            assert [1] == [entry["count"] for entry in logs]
            await asyncio.sleep(0.2)
            assert "reason 999" == logs[-1]["error"]
            await asyncio.sleep(5)
            warning.tell("late", 3)
        return [entry["count"] for entry in logs]

    assert [1, 999, 3] == run_virtual(main())


def test_another_loop() -> None:
    """What was counted in a loop that has ended is logged in the next one."""
    warning = ThrottledWarning(get_logger("test"), "strange")

    async def main() -> None:
        warning.tell("a")
        warning.tell("b")

    with structlog.testing.capture_logs() as logs:
        asyncio.run(main())
        asyncio.run(main())
    assert [1, 2] == [entry["count"] for entry in logs]
