"""Start a process that dies with its owner, however the owner ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Final, Literal
from weakref import WeakSet

from rxdispatch.errors import ConfigError

__all__ = ["Guard", "Guarded", "check_interpreter", "small_environment"]

Guard = Literal["kernel", "pipe"]

# What a program needs to be found, linked and told the time; the rest of the owner's environment
# may hold secrets, and anything that the server can be made to print it.
_PASSED: Final = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
)

# Set for the guard, and for nothing that it starts.
_MARK: Final = "RXDISPATCH_GUARD"

# Both guards end in this: they become the server, in the folder of its data.
_BECOME: Final = """\
import os, sys
def become():
    folder = int(sys.argv[3])
    if folder >= 0:
        os.fchdir(folder)
        os.close(folder)
    os.environ.pop("RXDISPATCH_GUARD", None)
    os.execv(sys.argv[4], sys.argv[4:])
"""

# Asks the kernel to be killed when the thread that started it ends, then becomes the server.
# The owner may have died before that was asked; then the parent is another process by now.
# SIGKILL, with data as well: it also ends a server that is busy in a script or stopped, and
# what it acknowledged is with the kernel by then: with "appendfsync no", and not with "everysec",
# the append-only file is written before each reply.
_KERNEL: Final = """\
import ctypes
if ctypes.CDLL(None).prctl(1, 9, 0, 0, 0) != 0:
    sys.exit("prctl(PR_SET_PDEATHSIG) failed")
if os.getppid() != int(sys.argv[1]):
    sys.exit("the owner is gone")
become()
"""

# Stays as the parent of the server. The owner holds the other end of a pipe, which the kernel
# closes when the owner ends; a second pipe is held by the server alone and tells its end.
_PIPE: Final = """\
import select, signal
owner = int(sys.argv[2])
mine, its = os.pipe()
pid = 0
signal.signal(signal.SIGTERM, lambda *_: pid and os.kill(pid, signal.SIGTERM))
pid = os.fork()
if pid == 0:
    os.close(owner)
    os.set_inheritable(its, True)
    become()
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

    It has a small environment, makes files that only this user can read, and runs in a session
    of its own, so that Ctrl-C at the terminal does not reach it: the
    owner stops it when it no longer needs it.

    Args:
        command: The absolute path of a program, and its arguments.
        log: Descriptor for what it prints.
        keep: Descriptors that it inherits.
        folder: Descriptor of the folder that it starts in; None for ``/``.
        guard: ``kernel`` (Linux) or ``pipe``; None for what the system can do. With ``kernel``
            it ends already with the *thread* that started it.

    Raises:
        OSError: If it cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: int,
        keep: Sequence[int],
        folder: int | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.guard: Guard = guard or ("kernel" if sys.platform == "linux" else "pipe")
        theirs = self._lifeline = -1
        fds = list(keep) if folder is None else [*keep, folder]
        if self.guard == "pipe":
            theirs, self._lifeline = os.pipe()
            fds.append(theirs)
        script = _BECOME + (_PIPE if self.guard == "pipe" else _KERNEL)
        shim = [sys.executable, "-I", "-S", "-c", script]
        numbers = [str(n) for n in (os.getpid(), theirs, -1 if folder is None else folder)]
        self._owner = os.getpid()
        try:
            self.process = subprocess.Popen(
                [*shim, *numbers, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=fds,
                cwd="/",
                env=small_environment() | {_MARK: "1"},
                umask=0o077,
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


def check_interpreter() -> None:
    """
    Look whether this process can start a guard, which is a script for Python.

    Raises:
        ConfigError: If ``sys.executable`` is no Python but the application itself (PyInstaller and
            the like), which would start itself again and again.
    """
    if getattr(sys, "frozen", False) or not sys.executable:
        rule = "the embedded server must be started by Python, not by a frozen application"
        raise ConfigError(f"{rule}; run a server beside it and give connect() its url")
    # Also where nothing else tells: the application was started in place of the guard.
    if _MARK in os.environ:
        rule = "sys.executable must be a Python interpreter to start the embedded server"
        raise ConfigError(f"{rule}; otherwise give connect() a url", sys.executable)


def small_environment() -> dict[str, str]:
    """Return what a server gets of this process's environment."""
    return {name: os.environ[name] for name in _PASSED if name in os.environ}


_guarded: WeakSet[Guarded] = WeakSet()


def _close_in_child() -> None:
    # A forked child that held the pipe open would keep the server alive after the owner.
    for guarded in tuple(_guarded):
        guarded._close_lifeline()  # pyright: ignore[reportPrivateUsage]


os.register_at_fork(after_in_child=_close_in_child)
