"""Signals by which a scheduler, or Ctrl-C, asks a process to stop: noted at once, heeded where nothing is lost.

SLURM sends one before the time limit (``--signal``), and another when the job must make way. A handler that did the
work itself would do it amid a step, on each process at another place; so here it only takes a note.
"""

import os
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TypeVar

STATUS = 85
"""What a process that was interrupted ends with: all it was to do may be gone on with by the same command."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)

Item = TypeVar("Item")

_received: str | None = None
_listener: int | None = None


class Interrupted(Exception):  # noqa: N818
    """The work has stopped at a place from which it can go on; its message says where."""


def listen() -> None:
    """Take note of `SIGNALS` from now on, in this process; to be called again where a library has put its own handlers.

    A second Ctrl-C, or one after another signal, is a `KeyboardInterrupt` at once.

    Processes forked from this one, such as those that load data, pay no heed: who started them will end them.
    """
    global _listener
    _listener = os.getpid()
    for each in SIGNALS:
        signal.signal(each, _note)


def received() -> str | None:
    """The name of the signal that has come, such as "SIGUSR1"; None while none has."""
    return _received


def heeded(items: Iterable[Item]) -> Iterator[Item]:
    """Give the items, and stop between two of them once a signal has come; for work that is kept item by item.

    Raises:
        Interrupted: then.
    """
    for item in items:
        yield item
        if _received is not None:
            raise Interrupted(f"by {_received}")


def requeue() -> bool:
    """Put this SLURM job back into the queue; every process may call it, the first one does it.

    Returns:
        Whether it will run again. Not where there is no job, nor where somebody has cancelled it.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return False
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    shown = _scontrol("show", "job", "--oneliner", job)
    state = re.search(r"\bJobState=(\w+)", shown.stdout)
    if state is None or state[1] not in ("RUNNING", "PREEMPTED", "PENDING"):
        return False
    if os.environ.get("SLURM_PROCID", "0") != "0":
        return True
    done = _scontrol("requeue", job)
    return done.returncode == 0 or "pending" in done.stderr.lower()  # SLURM has requeued it already


def _scontrol(*arguments: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(["scontrol", *arguments], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(list(arguments), 1, "", str(error))


def _note(number: int, frame: FrameType | None) -> None:
    global _received
    if os.getpid() != _listener:
        return
    if number == signal.SIGINT:
        if _received is not None:
            raise KeyboardInterrupt
        os.write(2, b"\nstopping where nothing is lost; Ctrl-C again stops at once\n")
    _received = signal.Signals(number).name
