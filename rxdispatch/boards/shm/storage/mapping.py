"""``Mapping``: the mapped file of a board, and the locks that show which processes are alive."""

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

from rxdispatch.boards.shm.storage import layout
from rxdispatch.boards.shm.storage.geometry import Geometry
from rxdispatch.errors import ConfigError
from rxdispatch.files.private_file import check_private, open_private

__all__ = ["Mapping", "path_of"]

F = TypeVar("F", bound=Callable[..., Any])

_LOCK: Final = struct.Struct("hhqqi4x")
_WHAT: Final = "the file of a board"
_SUBMIT_LOCK: Final = layout.SEATS
_DIRECTORY: Final = Path("/dev/shm")  # noqa: S108 - shared memory is what it is for


def path_of(name: str) -> Path:
    """Return the path of the file of a board; it depends on the user and the name."""
    digest = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
    return _DIRECTORY / f"rxdispatch-{os.geteuid()}-{digest}"


class Mapping:
    """
    One handle's mapping of a board, with its seat among the participants.

    A seat is a byte of the file that is locked while the handle is open. The kernel drops the lock
    when the process dies. So if a cell names a seat that is not locked, its participant is gone.
    The lock belongs to the open file, which a forked child shares. So a child closes the inherited
    file (:meth:`forked`) and takes a seat of its own.
    """

    def __init__(self, path: Path, descriptor: int, geometry: Geometry) -> None:
        atomic = _atomic()
        self.path = path
        self.geometry = geometry
        self.mmap = mmap.mmap(descriptor, geometry.size)
        self._view = atomic.AtomicView(self.mmap)
        self._lock_file = descriptor
        #: The device and inode of the file.
        self.file = _identity(os.fstat(descriptor))
        # Every write goes through the last five of these; tests stop the process at each write.
        self.load: Callable[[int], int] = self._view.load_u64
        self.store: Callable[[int, int], None] = self.step(self._view.store_u64)
        self.cas: Callable[[int, int, int], int] = self.step(self._view.cas_u64)
        self.add: Callable[[int, int], int] = self.step(self._view.fetch_add_u64)
        self.exchange: Callable[[int, int], int] = self.step(self._view.exchange_u64)
        self.put: Callable[[int, bytes], None] = self.step(self._put)
        self._words = memoryview(self.mmap)
        self.words = self._words[: geometry.size // 8 * 8].cast("Q")
        self.seat = -1
        self.closed = False

    def step(self, write: F) -> F:
        """Return the function to use for *write*; tests replace it."""
        return write

    def _put(self, offset: int, data: bytes) -> None:
        self.mmap[offset : offset + len(data)] = data

    # -- making and finding --------------------------------------------------------------------

    @classmethod
    def create(cls, name: str, geometry: Geometry) -> Mapping:
        """
        Make the file of a board.

        Raises:
            ConfigError: If a board of that name exists, or another user's file is in its place.
        """
        _atomic()
        path = path_of(name)
        if not _DIRECTORY.is_dir():
            raise ConfigError("the folder of shared memory must exist", str(_DIRECTORY))
        # The file has a temporary name until it is complete, so that no process maps half a header.
        draft = path.with_name(f"{path.name}.{os.getpid()}.{time.monotonic_ns()}")
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(descriptor, geometry.size)
            mapping = cls(path, descriptor, geometry)
            raw = name.encode()
            mapping.put(layout.NAME_AT, len(raw).to_bytes(2, "little") + raw)
            for offset, value in (
                (layout.AT_VERSION, layout.VERSION),
                (layout.AT_CELLS, geometry.capacity),
                (layout.AT_SPARE, geometry.spare),
                (layout.AT_SIZE, geometry.size),
                (layout.AT_MADE, time.time_ns() // 1000),
                (layout.NUMBER, 1),
                (layout.FREE_GUESS, geometry.cells),
                (layout.EARLIEST, (1 << 63) - 1),
                (layout.AT_MAGIC, layout.MAGIC),
            ):
                mapping.store(offset, value)
            try:
                os.link(draft, path)
            except FileExistsError:
                mapping.close()
                check_private(path.lstat(), path, what=_WHAT, links=True)
                raise ConfigError("name must not be in use by another board", name) from None
        finally:
            os.unlink(draft)  # noqa: PTH108
        mapping.sit()
        return mapping

    @classmethod
    def attach(cls, name: str) -> Mapping:
        """
        Map the file of an existing board.

        Raises:
            ConfigError: If there is none, it has another version of the layout, or another user may
                have made it or can use it.
        """
        _atomic()
        path = path_of(name)
        try:
            descriptor = open_private(path, os.O_RDWR, what=_WHAT, links=True)
        except FileNotFoundError:
            raise ConfigError("name must be that of a board in shared memory", name) from None
        try:
            geometry = _known(descriptor, name)
            mapping = cls(path, descriptor, geometry)
        except BaseException:
            os.close(descriptor)
            raise
        try:
            mapping.sit()
        except BaseException:
            mapping.close()
            raise
        return mapping

    def close(self) -> None:
        """Free the seat and close the mapping."""
        if self.closed:
            return
        self.closed = True
        if self.seat >= 0:
            self.store(
                layout.SEATS_AT + self.seat * 8, self.load(layout.SEATS_AT + self.seat * 8) & ~1
            )
        self._view.close()
        self.words.release()
        self._words.release()
        self.mmap.close()
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
        for seat in range(layout.SEATS):
            if self._try_lock(seat):
                self.seat = seat
                return
        raise ConfigError(f"a board must have at most {layout.SEATS} handles at a time")

    def forked(self) -> None:
        """Let go of what belongs to the parent; call this in a forked child only."""
        inherited, self._lock_file, self.seat = self._lock_file, -1, -1
        if inherited >= 0:
            with suppress(OSError):
                # This opens the same file without the locks, even if it has been unlinked. Without
                # /proc, sit() opens the file by name later.
                again = f"/proc/self/fd/{inherited}"
                self._lock_file = os.open(again, os.O_RDWR | os.O_CLOEXEC)
            # This does not unlock: the parent's descriptor keeps the lock.
            os.close(inherited)

    def _opened_again(self) -> int:
        descriptor = open_private(self.path, os.O_RDWR, what=_WHAT, links=True)
        if _identity(os.fstat(descriptor)) != self.file:
            os.close(descriptor)
            raise ConfigError(f"{_WHAT} must be the one that the parent has open", str(self.path))
        return descriptor

    def try_submit_lock(self) -> bool:
        """Take the submit lock; returns False if it is not free."""
        return self._try_lock(_SUBMIT_LOCK)

    def submit_unlock(self) -> None:
        """Release the submit lock."""
        self._unlock(_SUBMIT_LOCK)

    def proven_dead(self, seat: int) -> bool:
        """Lock a seat until :meth:`leave`, if its participant is dead; returns False if not."""
        return seat != self.seat and seat < layout.SEATS and self._try_lock(seat)

    def leave(self, seat: int) -> None:
        """Unlock a seat that was locked for cleaning."""
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


def _known(descriptor: int, name: str) -> Geometry:
    """Check the header of a file, and return its geometry."""
    mode = os.fstat(descriptor).st_mode & 0o077
    if mode:
        raise ConfigError(f"{_WHAT} must be readable by its owner only (chmod go=)", name)
    header = os.pread(descriptor, layout.HEADER, 0)
    if len(header) < layout.HEADER or _u64(header, layout.AT_MAGIC) != layout.MAGIC:
        raise ConfigError("the file of a board must have been made by rxdispatch", name)
    version = _u64(header, layout.AT_VERSION)
    if version != layout.VERSION:
        raise ConfigError(f"the layout of a board must be of version {layout.VERSION}", version)
    geometry = Geometry(_u64(header, layout.AT_CELLS), _u64(header, layout.AT_SPARE))
    size = os.fstat(descriptor).st_size
    if size != geometry.size or size != _u64(header, layout.AT_SIZE):
        raise ConfigError(f"the file of a board must have {geometry.size} bytes", size)
    # A hard link may lead to a board with another name. The number of links does not tell: a board
    # has two while it is being made.
    raw = name.encode()
    if not header[layout.NAME_AT :].startswith(len(raw).to_bytes(2, "little") + raw):
        raise ConfigError(f"{_WHAT} must be that of the board's own name", name)
    return geometry


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
