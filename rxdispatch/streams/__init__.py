"""Ways into and out of streams."""

from __future__ import annotations

from rxdispatch.streams._kill_switch import KillSwitch
from rxdispatch.streams._run import run

__all__ = ["KillSwitch", "run"]
