"""``Memory``: the file in shared memory that a board lives in, and the locks that prove life."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from rxdispatch.boards.shm.storage import layout as lay
from rxdispatch.boards.shm.storage.layout import Layout
from rxdispatch.errors import ConfigError
from rxdispatch.files.private_file import check_private, open_private

__all__ = ["Memory", "path_of"]

F = TypeVar("F", bound=Callable[..., Any])

_LOCK: Final = struct.Struct("hhqqi4x")
_WHAT: Final = "the file of a board"
_SUBMIT_LOCK: Final = lay.SEATS
_DIRECTORY: Final = Path("/dev/shm")  # noqa: S108 - shared memory is what it is for


def path_of(name: str) -> Path:
    """Return the file of the board of that name; each user has boards of his own."""
    digest = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
    return _DIRECTORY / f"rxdispatch-{os.geteuid()}-{digest}"


class Memory:
    """
    One handle's mapping of a board, with its seat among the participants.

    A seat is a byte of the file that is locked as long as the handle lives. The kernel drops
    the lock when the process dies, however it dies, and only then: it is the proof of death.
    The lock belongs to the open file, which a forked child shares; so a child gives up the
    seat it inherited (:meth:`forked`) and takes one of its own.
    """

    def __init__(self, path: Path, descriptor: int, layout: Layout) -> None:
        atomic = _atomic()
        self.path = path
        self.layout = layout
        self.map = mmap.mmap(descriptor, layout.size)
        self._view = atomic.AtomicView(self.map)
        self._lock_file = descriptor
        #: Device and inode.
        self.file = _identity(os.fstat(descriptor))
        # Everything that is ever written goes through these five: tests step from one to the
        # next and end the process there.
        self.load: Callable[[int], int] = self._view.load_u64
        self.store: Callable[[int, int], None] = self.step(self._view.store_u64)
        self.cas: Callable[[int, int, int], int] = self.step(self._view.cas_u64)
        self.add: Callable[[int, int], int] = self.step(self._view.fetch_add_u64)
        self.exchange: Callable[[int, int], int] = self.step(self._view.exchange_u64)
        self.put: Callable[[int, bytes], None] = self.step(self._put)
        self._words = memoryview(self.map)
        self.words = self._words[: layout.size // 8 * 8].cast("Q")
        self.seat = -1
        self.closed = False

    def step(self, write: F) -> F:
        """Return what writes in *write*'s place."""
        return write

    def _put(self, offset: int, data: bytes) -> None:
        self.map[offset : offset + len(data)] = data

    # -- making and finding --------------------------------------------------------------------

    @classmethod
    def create(cls, name: str, layout: Layout) -> Memory:
        """
        Make the file of a board.

        Raises:
            ConfigError: If there is one of that name, or another user's file is in its place.
        """
        _atomic()
        path = path_of(name)
        if not _DIRECTORY.is_dir():
            raise ConfigError("boards in shared memory must have a place", str(_DIRECTORY))
        # Under a name of its own until it is complete, so that nobody finds half a header.
        draft = path.with_name(f"{path.name}.{os.getpid()}.{time.monotonic_ns()}")
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(descriptor, layout.size)
            memory = cls(path, descriptor, layout)
            raw = name.encode()
            memory.put(lay.NAME_AT, len(raw).to_bytes(2, "little") + raw)
            for offset, value in (
                (lay.AT_VERSION, lay.VERSION),
                (lay.AT_CELLS, layout.capacity),
                (lay.AT_SPARE, layout.spare),
                (lay.AT_SIZE, layout.size),
                (lay.AT_MADE, time.time_ns() // 1000),
                (lay.NUMBER, 1),
                (lay.FREE_GUESS, layout.cells),
                (lay.EARLIEST, (1 << 63) - 1),
                (lay.AT_MAGIC, lay.MAGIC),
            ):
                memory.store(offset, value)
            try:
                os.link(draft, path)
            except FileExistsError:
                memory.close()
                check_private(path.lstat(), path, what=_WHAT, links=True)
                raise ConfigError("name must not be in use by another board", name) from None
        finally:
            os.unlink(draft)  # noqa: PTH108
        memory.sit()
        return memory

    @classmethod
    def attach(cls, name: str) -> Memory:
        """
        Map the file of a board that somebody made.

        Raises:
            ConfigError: If there is none, it is not of this version's making, or another user
                can have made it or can use it.
        """
        _atomic()
        path = path_of(name)
        try:
            descriptor = open_private(path, os.O_RDWR, what=_WHAT, links=True)
        except FileNotFoundError:
            raise ConfigError("name must be that of a board in shared memory", name) from None
        try:
            layout = _known(descriptor, name)
            memory = cls(path, descriptor, layout)
        except BaseException:
            os.close(descriptor)
            raise
        try:
            memory.sit()
        except BaseException:
            memory.close()
            raise
        return memory

    def close(self) -> None:
        """Give up the seat and the mapping."""
        if self.closed:
            return
        self.closed = True
        if self.seat >= 0:
            self.store(lay.SEATS_AT + self.seat * 8, self.load(lay.SEATS_AT + self.seat * 8) & ~1)
        self._view.close()
        self.words.release()
        self._words.release()
        self.map.close()
        descriptor, self._lock_file = self._lock_file, -1
        if descriptor >= 0:
            os.close(descriptor)

    # -- seats ---------------------------------------------------------------------------------

    def sit(self) -> None:
        """
        Take a seat.

        Raises:
            ConfigError: If all are taken.
        """
        if self._lock_file < 0:
            self._lock_file = self._opened_again()
        for seat in range(lay.SEATS):
            if self._try_lock(seat):
                self.seat = seat
                return
        raise ConfigError(f"a board must have at most {lay.SEATS} handles at a time")

    def forked(self) -> None:
        """Give up what is the parent's; call it in a forked child only."""
        inherited, self._lock_file, self.seat = self._lock_file, -1, -1
        if inherited >= 0:
            with suppress(OSError):
                # Another descriptor of the same file, without the locks, whatever has become of
                # the name. Where there is no /proc, the file is opened by name later.
                again = f"/proc/self/fd/{inherited}"
                self._lock_file = os.open(again, os.O_RDWR | os.O_CLOEXEC)
            # Closing is not unlocking: the parent's descriptor keeps the lock.
            os.close(inherited)

    def _opened_again(self) -> int:
        descriptor = open_private(self.path, os.O_RDWR, what=_WHAT, links=True)
        if _identity(os.fstat(descriptor)) != self.file:
            os.close(descriptor)
            raise ConfigError(f"{_WHAT} must be the one that the parent has open", str(self.path))
        return descriptor

    def try_submit_lock(self) -> bool:
        """Take the lock that submitters share, if it is free."""
        return self._try_lock(_SUBMIT_LOCK)

    def submit_unlock(self) -> None:
        """Let the next submitter in."""
        self._unlock(_SUBMIT_LOCK)

    def proven_dead(self, seat: int) -> bool:
        """Take the seat of who is dead, if he is; :meth:`leave` it afterwards."""
        return seat != self.seat and seat < lay.SEATS and self._try_lock(seat)

    def leave(self, seat: int) -> None:
        """Give up a seat that was taken for cleaning."""
        self._unlock(seat)

    def _try_lock(self, byte: int) -> bool:
        try:
            fcntl.fcntl(
                self._lock_file,
                fcntl.F_OFD_SETLK,
                _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0),
            )
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _unlock(self, byte: int) -> None:
        fcntl.fcntl(
            self._lock_file, fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, byte, 1, 0)
        )


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _known(descriptor: int, name: str) -> Layout:
    """Return the layout that a file's header tells, after comparing all of it."""
    mode = os.fstat(descriptor).st_mode & 0o077
    if mode:
        raise ConfigError(f"{_WHAT} must be readable by its owner only (chmod go=)", name)
    header = os.pread(descriptor, lay.HEADER, 0)
    if len(header) < lay.HEADER or _u64(header, lay.AT_MAGIC) != lay.MAGIC:
        raise ConfigError("the file of a board must have been made by rxdispatch", name)
    version = _u64(header, lay.AT_VERSION)
    if version != lay.VERSION:
        raise ConfigError(f"the layout of a board must be of version {lay.VERSION}", version)
    layout = Layout(_u64(header, lay.AT_CELLS), _u64(header, lay.AT_SPARE))
    size = os.fstat(descriptor).st_size
    if size != layout.size or size != _u64(header, lay.AT_SIZE):
        raise ConfigError(f"the file of a board must have {layout.size} bytes", size)
    # A hard link leads to the board of another name. The number of links does not tell: a board
    # that is just being made has two.
    raw = name.encode()
    if not header[lay.NAME_AT :].startswith(len(raw).to_bytes(2, "little") + raw):
        raise ConfigError(f"{_WHAT} must be that of the board's own name", name)
    return layout


def _u64(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 8], "little")


def _atomic() -> Any:
    if not sys.platform.startswith("linux"):
        raise ConfigError("boards in shared memory must be on Linux", sys.platform)
    try:
        import atomicshm  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError("boards in shared memory need the extra rxdispatch[shm]") from error
    return atomicshm
