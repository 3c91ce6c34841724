"""The folder of a run: its lock, and what is left there of a process that was killed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from langevin.errors import UserError

LOCK = ".lock"


def quarantine_corrupt(whole: Path) -> None:
    """Rename the damaged checkpoints newer than the one to resume from, which would otherwise be used instead of it."""
    from langevin.checkpoint import last_checkpoints

    for path in last_checkpoints(whole.parent):
        if path == whole:
            return
        path.rename(path.with_suffix(".damaged"))


def clear_unfinished(run_dir: Path) -> None:
    """Remove the files that a process of this run was writing when it was killed."""
    for directory in (run_dir, *(run_dir / name for name in ("checkpoints", "samples", "evaluations", "snapshots"))):
        if directory.is_symlink():  # may point to files of others
            continue
        for path in directory.glob(".*"):
            if path.is_file() and path.name != LOCK:
                path.unlink()


def clear(run_dir: Path) -> None:
    """Remove all files of an earlier run but its lock, which is held."""
    for path in run_dir.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


@contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Lock the run's folder against a second process that trains the run; the lock of a killed process is released.

    Raises:
        UserError: when another process holds it.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    if (run_dir / LOCK).is_symlink():  # locking it may empty the file that it leads to
        raise UserError(f"{run_dir / LOCK} is a link; remove it")
    try:
        with FileLock(run_dir / LOCK, timeout=0):
            yield
    except Timeout as error:
        raise UserError(f"the run {run_dir} is being trained by another process; wait for it, or stop it") from error
