"""Folders of computed files: one process makes each, all others open it."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from langevin.errors import UserError
from langevin.files import readable
from langevin.interrupt import Interrupted, received

PROGRESS = "chunks"
"""Of an unfinished folder, what is done of it; a finished one has no such file."""
T = TypeVar("T")


def folder_named(cache_dir: Path, name: str, meaning: object) -> Path:
    """A folder of the cache.

    Args:
        cache_dir: the folder of all caches.
        name: what it is called, for people.
        meaning: all that decides its content, by its ``repr``.
    """
    return cache_dir / f"{name}-{hashlib.sha256(repr(meaning).encode()).hexdigest()[:16]}"


def building_of(folder: Path) -> Path:
    """What a folder is called until it is finished."""
    return folder.with_name(f"{folder.name}.building")


def room_for(folder: Path, size: int, what: str, about: str = "") -> str:
    """How much room a folder that is to be made takes, and how much there is, to be said before it is made.

    Args:
        folder: not finished yet; what an interrupted call has left of it, which is resumed, takes no more room.
        size: in bytes.
        what: is made, in the plural, for the message.
        about: comes before the size, such as "about ".

    Raises:
        UserError: when there is not enough room.
    """
    free = shutil.disk_usage(folder.parent).free
    with suppress(OSError):
        free += sum(path.stat().st_size for path in building_of(folder).iterdir())
    room = f"{about}{readable(size)} in {folder.parent}, where {readable(free)} are free"
    if size > free:
        raise UserError(
            f"loader.cache_dir: {what} take {room}; make room, or give a folder on another disk with "
            "loader.cache_dir=FOLDER"
        )
    return room


def open_or_make(
    folder: Path, opened: Callable[[Path], T], prepare: Callable[[], Callable[[Path], None]], what: str, doing: str
) -> T:
    """Open a folder's content, and make it first if it is not there or damaged.

    Any number of processes may call this at once: one makes it, the others wait for it. What fails leaves nothing
    behind. What is interrupted or killed leaves its unfinished folder, from which the next resumes.

    Args:
        folder: in the folder of all caches.
        opened: opens a finished folder, and raises ValueError when it is incomplete.
        prepare: called only if it must be made, when nobody else makes it; returns what fills the unfinished folder,
            which is there and may have content of an interrupted call. It writes the file `PROGRESS` as well.
        what: is written, for messages.
        doing: what a process does that makes it, for messages.

    Raises:
        UserError: when it cannot be written, or the disk is full.
        Interrupted: while another process makes it, once a signal has come.
    """
    try:
        return opened(folder)  # without the lock: what is finished may lie on a read-only disk
    except ValueError:
        pass
    cache_dir = folder.parent
    with _report_write_errors(cache_dir, what):
        cache_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache_dir / f"{folder.name}.lock")
        _acquire(lock, doing)
    try:
        try:
            return opened(folder)  # another process made it while this one waited
        except ValueError:
            pass
        fill = prepare()
        with _report_write_errors(cache_dir, what):
            # Under the lock nobody else makes this folder: what lies there is damaged, or of an earlier version.
            for left_over in (folder, *cache_dir.glob(f"{folder.name}.building-*")):
                if left_over.exists():
                    shutil.rmtree(left_over)
            _make(folder, fill)
        return opened(folder)
    finally:
        lock.release()


def _make(folder: Path, fill: Callable[[Path], None]) -> None:
    building = building_of(folder)
    try:
        building.mkdir(exist_ok=True)
        fill(building)
        for path in building.iterdir():
            _flush(path)  # else a crash of the machine could leave files of the right size with wrong content
        os.rename(building, folder)
        (folder / PROGRESS).unlink()
    except Interrupted:
        raise
    except Exception:  # a second Ctrl-C is no Exception, and leaves what is done, as a kill does
        shutil.rmtree(building, ignore_errors=True)
        raise


def _acquire(lock: FileLock, doing: str) -> None:
    """Wait for the process that makes the folder, unless a signal comes."""
    while True:
        try:
            lock.acquire(timeout=1)
            return
        except Timeout:
            if received() is not None:
                raise Interrupted(f"by {received()} while another process {doing}") from None


@contextmanager
def _report_write_errors(cache_dir: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"loader.cache_dir={cache_dir}: {what} cannot be written ({error}); "
            "make room, or give a folder on another disk with loader.cache_dir=FOLDER"
        ) from error


def _flush(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
