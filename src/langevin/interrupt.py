"""Signals by which a scheduler, or Ctrl-C, asks a process to stop: noted at once, heeded where nothing is lost.

SLURM sends one before the time limit (``--signal``), and another when the job must make way. A handler that did the
work itself would do it amid a step, on each process at another place; so here it only takes a note.
"""

import itertools
import os
import re
import signal
import subprocess
import threading
import warnings
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import NoReturn, TypeVar

from langevin.agreement import everywhere, is_distributed

STATUS = 85
"""What a process that was interrupted ends with: all it was to do may be gone on with by the same command."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)

Item = TypeVar("Item")

_received: str | None = None
_listener: int | None = None
_while: str | None = None  # what is under way that may be dropped at once, in words; None while nothing is


class Interrupted(BaseException):
    """The work has stopped at a place from which it can go on; its message says where.

    Like `KeyboardInterrupt` it is no `Exception`: code that deals with whatever may fail must not deal with it.
    """


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


def agreed() -> bool:
    """Whether a signal has come to any process of this command; every process must ask."""
    return not everywhere(_received is None)


def require_undisturbed(where: str = "") -> None:
    """Go on unless a signal has come to any process of this command; every process must ask.

    Args:
        where: the place at which the work stands, for people, such as "at step 4".

    Raises:
        Interrupted: on all of them, where one has come.
    """
    if agreed():
        raise Interrupted(f"by {_received or 'a signal'} {where}".rstrip())


def stop_on_signal(items: Iterable[Item], rounds: int | None = None, where: str = "") -> Iterator[Item]:
    """Give the items, and stop between two of them once a signal has come; all processes stop after the same round.

    Args:
        items: this process's, at most `rounds`.
        rounds: the same on all processes; None where each has as many items as the others.
        where: see `require_undisturbed`.

    Raises:
        Interrupted: then, on all processes.
    """
    left = iter(items)
    if rounds is None:
        for item in left:
            yield item
            require_undisturbed(where)
    else:
        for _ in range(rounds):
            yield from itertools.islice(left, 1)
            require_undisturbed(where)


def drop_at_once(doing: str) -> None:
    """From now to `keep` a signal stops this process in the midst of its work, of which nothing is to be kept.

    Not one of several processes, which could not agree to; nor a thread, for Python hands signals to the main one.

    Args:
        doing: the work, for people, such as "while the network was compiled".

    Raises:
        Interrupted: in the main thread, when a signal comes or has come.
    """
    global _while
    if is_distributed() or threading.current_thread() is not threading.main_thread():
        return
    _while = doing
    if _received is not None:
        _drop()


def keep() -> None:
    """Such work is done: signals are only noted again."""
    global _while
    if threading.current_thread() is threading.main_thread():
        _while = None


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
        if _while is None:
            os.write(2, b"\nstopping where nothing is lost; Ctrl-C again stops at once\n")
    _received = signal.Signals(number).name
    if _while is not None:
        _drop()


def _drop() -> NoReturn:
    global _while
    doing, _while = _while, None
    warnings.simplefilter("ignore")  # libraries warn of their work that is cut short
    raise Interrupted(f"by {_received} {doing}")
