"""``Sampler``: where a process spends its time, sampled a thousand times a second."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from types import FrameType, TracebackType
from typing import Final, Self

__all__ = ["OTHER", "Sampler", "Steps"]

Steps = Mapping[str, Sequence[str]]
"""Name of a step -> its frames: ``"task_codec.py:decode"``, or a file alone."""

OTHER: Final = "anything else"


class Sampler:
    """
    Counts in which step the main thread is, while the block runs.

    A sample belongs to the innermost frame that a step names, so the calls of a step count for it
    unless they are steps of their own. Unlike a profiler that traces every call, a sampler does not
    make small functions look slow.

    Args:
        steps: The steps to distinguish.
        every: Seconds of the wall clock between samples; waiting counts too.

    The program must not use ``SIGALRM`` for anything else.
    """

    def __init__(self, steps: Steps, every: float = 0.001) -> None:
        self._names = {where: name for name, places in steps.items() for where in places}
        self._every = every
        self._known: dict[object, str | None] = {}
        self._previous: object = None
        self.found: Counter[str] = Counter()
        self.strays: Counter[str] = Counter()

    def share(self, name: str) -> float:
        """Return the share of the samples in a step."""
        return self.found[name] / max(1, self.found.total())

    def __enter__(self) -> Self:
        """Start to sample."""
        self._previous = signal.signal(signal.SIGALRM, self._sample)
        signal.setitimer(signal.ITIMER_REAL, self._every, self._every)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def _sample(self, _: int, frame: FrameType | None) -> None:
        innermost = frame
        while frame is not None:
            code = frame.f_code
            try:
                name = self._known[code]
            except KeyError:
                name = self._known[code] = self._step(code.co_filename, code.co_qualname)
            if name is not None:
                self.found[name] += 1
                return
            frame = frame.f_back
        self.found[OTHER] += 1
        if innermost is not None:
            code = innermost.f_code
            self.strays[f"{code.co_filename}:{code.co_qualname}"] += 1

    def _step(self, path: str, function: str) -> str | None:
        parts = path.split("/")
        for length in (2, 1):
            file = "/".join(parts[-length:])
            for where in (f"{file}:{function}", file):
                if where in self._names:
                    return self._names[where]
        return None
