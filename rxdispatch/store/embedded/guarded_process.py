"""``GuardedProcess``: a child process that dies with its owner, however the owner ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Final, Literal
from weakref import WeakSet

from rxdispatch.errors import ConfigError

__all__ = ["Guard", "GuardedProcess", "check_interpreter", "small_environment"]

Guard = Literal["kernel", "pipe"]

# The variables for finding programs and libraries, for the language and for the time zone. The rest
# of the owner's environment may hold secrets, and a server can be made to print its environment.
_PASSED: Final = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
)

# Set for the guard only; the processes that it starts do not get it.
_MARK: Final = "RXDISPATCH_GUARD"

# The last step of both guards: the process becomes the server, in its data folder.
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

# The guard on Linux. It asks the kernel for a SIGKILL when the thread that started it ends, then
# becomes the server. If the owner died before that request, the parent is another process by now.
# The signal is SIGKILL even for a server with data, because that also ends a server that is stopped
# or busy in a script. It loses no acknowledged write: with "appendfsync no", unlike "everysec", the
# server passes each write to the kernel before it replies.
_KERNEL: Final = """\
import ctypes
if ctypes.CDLL(None).prctl(1, 9, 0, 0, 0) != 0:
    sys.exit("prctl(PR_SET_PDEATHSIG) failed")
if os.getppid() != int(sys.argv[1]):
    sys.exit("the owner is gone")
become()
"""

# The guard on other systems. It stays as the server's parent. The owner holds the other end of a
# pipe, and the kernel closes that end when the owner ends. Only the server holds the other end of a
# second pipe, so its closing shows that the server has ended.
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


class GuardedProcess:
    """
    A process that ends with its owner.

    It has a small environment, and creates files that only this user can read. It runs in a session
    of its own, so that Ctrl-C at the terminal does not reach it; its owner stops it.

    Args:
        command: The absolute path of a program, and its arguments.
        log: The descriptor for its output.
        keep: The descriptors that it inherits.
        folder: The descriptor of its working directory; None for ``/``.
        guard: ``kernel`` (Linux) or ``pipe``; None chooses by the system. With ``kernel`` the
            process ends with the *thread* that started it.

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
        """Whether the process has ended; if so, it is reaped."""
        return self.process.poll() is not None

    def terminate(self) -> None:
        """Send SIGTERM, and SIGCONT in case the process is stopped."""
        self.process.send_signal(signal.SIGTERM)
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill the process."""
        if self.guard == "kernel":
            self.process.kill()
        else:
            self._close_lifeline()

    def discard(self) -> None:
        """Kill and reap the process; does nothing in a forked child of the owner."""
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
    Check that this process can start a guard, which is a Python script.

    Raises:
        ConfigError: If ``sys.executable`` is not Python but the application itself (PyInstaller and
            the like), which would start itself over and over.
    """
    if getattr(sys, "frozen", False) or not sys.executable:
        rule = "the embedded server must be started by Python, not by a frozen application"
        raise ConfigError(f"{rule}; run a server beside it and give connect() its url")
    # The mark shows it if nothing else does: the application was started in place of the guard.
    if _MARK in os.environ:
        rule = "sys.executable must be a Python interpreter to start the embedded server"
        raise ConfigError(f"{rule}; otherwise give connect() a url", sys.executable)


def small_environment() -> dict[str, str]:
    """Return the part of this process's environment that a server gets."""
    return {name: os.environ[name] for name in _PASSED if name in os.environ}


_guarded: WeakSet[GuardedProcess] = WeakSet()


def _close_in_child() -> None:
    # A forked child with the pipe open would keep the server alive after the owner.
    for guarded in tuple(_guarded):
        guarded._close_lifeline()  # pyright: ignore[reportPrivateUsage]


os.register_at_fork(after_in_child=_close_in_child)
