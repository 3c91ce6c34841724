"""An output folder that one command fills at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from langevin.errors import UserError

LOCK = ".out.lock"


@contextmanager
def filling(out: Path) -> Iterator[None]:
    """Lock an output folder against a second command that would fill it; the lock of a killed process is released.

    The folder is made where it is missing. The lock's file, and a folder that was made and in which nothing was put,
    are removed at the end.

    Args:
        out: the folder.

    Raises:
        UserError: when another process fills it.
        OSError: when it cannot be made or written.
    """
    is_new, lock = not out.exists(), FileLock(out / LOCK)
    while True:
        out.mkdir(parents=True, exist_ok=True)
        try:
            if (out / LOCK).is_symlink():  # locking it may empty the file that it leads to
                raise UserError(f"{out / LOCK} is a link; remove it, or choose another out=")
            Path(out / LOCK).touch()
            before = os.stat(out / LOCK)
            lock.acquire(timeout=0)
            # The holder removes the file before it releases the lock: a lock on a removed file excludes nobody.
            if os.path.samestat(before, os.stat(out / LOCK)):
                break
        except FileNotFoundError:
            pass  # removed in between
        except Timeout as error:
            raise UserError(
                f"out={out}: another process is filling that folder; wait for it, or choose another out="
            ) from error
        lock.release()
    try:
        yield
    finally:
        with suppress(OSError):  # such as on Windows, where an open file cannot be removed
            (out / LOCK).unlink(missing_ok=True)
        lock.release()
        if is_new:
            with suppress(OSError):  # it holds something
                out.rmdir()
