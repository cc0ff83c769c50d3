"""
Tools for testing streams.

A loop on virtual time (:class:`VirtualTimeLoop`, :func:`run_virtual`), a subscriber and a source
with demand (:class:`Probe`, :class:`Supply`), streams from marble drawings (:func:`cold`,
:func:`hot`, :func:`expect`) and a check for leaks (:func:`no_leaks`). Fixtures for pytest are in
``rxdispatch.testing.plugin``.
"""

from __future__ import annotations

from rxdispatch.testing._leaks import no_leaks
from rxdispatch.testing._loop import VirtualTimeLoop, run_virtual
from rxdispatch.testing._marbles import cold, expect, hot
from rxdispatch.testing._probe import Probe, Supply

__all__ = [
    "Probe",
    "Supply",
    "VirtualTimeLoop",
    "cold",
    "expect",
    "hot",
    "no_leaks",
    "run_virtual",
]
