"""Start a process that dies with its owner, however the owner ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Final, Literal
from weakref import WeakSet

__all__ = ["Guard", "Guarded"]

Guard = Literal["kernel", "pipe"]

# Asks the kernel to be killed when the thread that started it ends, then becomes the server.
# The owner may have died before that was asked; then the parent is another process by now.
# SIGKILL, with data as well: it also ends a server that is busy in a script or stopped, and
# what it acknowledged is with the kernel by then, as the append-only file is written before
# the reply.
_KERNEL: Final = """\
import ctypes, os, sys
if ctypes.CDLL(None).prctl(1, 9, 0, 0, 0) != 0:
    sys.exit("prctl(PR_SET_PDEATHSIG) failed")
if os.getppid() != int(sys.argv[1]):
    sys.exit("the owner is gone")
os.execv(sys.argv[3], sys.argv[3:])
"""

# Stays as the parent of the server. The owner holds the other end of a pipe, which the kernel
# closes when the owner ends; a second pipe is held by the server alone and tells its end.
_PIPE: Final = """\
import os, select, signal, sys
owner = int(sys.argv[2])
mine, its = os.pipe()
pid = 0
signal.signal(signal.SIGTERM, lambda *_: pid and os.kill(pid, signal.SIGTERM))
pid = os.fork()
if pid == 0:
    os.close(owner)
    os.set_inheritable(its, True)
    os.execv(sys.argv[3], sys.argv[3:])
os.close(its)
ready = select.select([owner, mine], [], [])[0]
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if owner in ready:
    os.kill(pid, signal.SIGKILL)
status = os.waitpid(pid, 0)[1]
sys.exit(os.waitstatus_to_exitcode(status) and 1)
"""


class Guarded:
    """
    A process that ends with its owner.

    It runs in a session of its own, so that Ctrl-C at the terminal does not reach it: the
    owner stops it when it no longer needs it.

    Args:
        command: The absolute path of a program, and its arguments.
        log: Descriptor for what it prints.
        keep: Descriptors that it inherits.
        guard: ``kernel`` (Linux) or ``pipe``; None for what the system can do. With ``kernel``
            it ends already with the *thread* that started it.

    Raises:
        OSError: If it cannot be started.
    """

    def __init__(
        self, command: Sequence[str], *, log: int, keep: Sequence[int], guard: Guard | None = None
    ) -> None:
        self.guard: Guard = guard or ("kernel" if sys.platform == "linux" else "pipe")
        theirs = self._lifeline = -1
        fds = list(keep)
        if self.guard == "pipe":
            theirs, self._lifeline = os.pipe()
            fds.append(theirs)
        shim = [sys.executable, "-I", "-S", "-c", _PIPE if self.guard == "pipe" else _KERNEL]
        self._owner = os.getpid()
        try:
            self.process = subprocess.Popen(
                [*shim, str(self._owner), str(theirs), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=fds,
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            self._close_lifeline()
            raise
        finally:
            if theirs >= 0:
                os.close(theirs)
        _guarded.add(self)

    @property
    def ended(self) -> bool:
        """Whether it has ended; it is reaped by then."""
        return self.process.poll() is not None

    def terminate(self) -> None:
        """Ask it to end, also when it is stopped."""
        self.process.send_signal(signal.SIGTERM)
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it now."""
        if self.guard == "kernel":
            self.process.kill()
        else:
            self._close_lifeline()

    def discard(self) -> None:
        """End it now and reap it; does nothing in a forked child of the owner."""
        if os.getpid() == self._owner:
            self.kill()
            self.process.wait()
            self._close_lifeline()

    def _close_lifeline(self) -> None:
        lifeline, self._lifeline = self._lifeline, -1
        if lifeline >= 0:
            os.close(lifeline)


_guarded: WeakSet[Guarded] = WeakSet()


def _close_in_child() -> None:
    # A forked child that held the pipe open would keep the server alive after the owner.
    for guarded in tuple(_guarded):
        guarded._close_lifeline()  # pyright: ignore[reportPrivateUsage]


os.register_at_fork(after_in_child=_close_in_child)
