"""What tests of streams need, for users and for rxdispatch itself."""

from __future__ import annotations

from rxdispatch.testing._loop import VirtualTimeLoop, run_virtual

__all__ = ["VirtualTimeLoop", "run_virtual"]
