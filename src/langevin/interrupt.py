"""Signals by which a scheduler, or Ctrl-C, asks a process to stop: recorded at once, handled at a safe point.

SLURM sends one before the time limit (``--signal``), and another when the job is preempted. A handler that saved and
stopped by itself would do so in the middle of a step, on each process at another place; so it only sets a flag.
"""

import itertools
import os
import re
import signal
import subprocess
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, TypeVar

from langevin.agreement import everywhere, is_distributed

STATUS = 85
"""The exit status of an interrupted process: the same command resumes its work."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)

Item = TypeVar("Item")

_received: str | None = None
_listener: int | None = None
_while: str | None = None  # a description of the current work if it may be dropped at once; else None


class Interrupted(BaseException):
    """The work has stopped at a point from which it can be resumed; the message says where.

    Like `KeyboardInterrupt` it is not an `Exception`: code that catches any failure must not catch it.
    """


def listen() -> None:
    """Record `SIGNALS` from now on, in this process; to be called again where a library has set its own handlers.

    A second Ctrl-C, or one after another signal, is a `KeyboardInterrupt` at once.

    Processes forked from this one, such as those that load data, ignore them: their parent will end them.
    """
    global _listener
    _listener = os.getpid()
    for each in SIGNALS:
        signal.signal(each, _note)


@contextmanager
def listening() -> Iterator[None]:
    """Record `SIGNALS` while a part of a program runs; afterwards they do what they did before.

    In the main thread only, as Python has it for all that concerns signals.
    """
    global _received
    before = {each: signal.getsignal(each) for each in SIGNALS}
    listen()
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, signal.SIG_DFL if handler is None else handler)
        _received = None


def received() -> str | None:
    """The name of the received signal, such as "SIGUSR1"; None if there is none."""
    return _received


def agreed() -> bool:
    """Whether any process of this command has received a signal; every process must call it."""
    return not everywhere(_received is None)


def require_undisturbed(where: str = "") -> None:
    """Return unless a process of this command has received a signal; every process must call it.

    Args:
        where: the current point of the work, for the message, such as "at step 4".

    Raises:
        Interrupted: on all processes, where one has received a signal.
    """
    if agreed():
        raise Interrupted(f"by {_received or 'a signal'} {where}".rstrip())


def stop_on_signal(items: Iterable[Item], rounds: int | None = None, where: str = "") -> Iterator[Item]:
    """Yield the items, and stop between two of them after a signal; all processes stop after the same round.

    Args:
        items: this process's, at most `rounds`.
        rounds: the same on all processes; None where each has as many items as the others.
        where: see `require_undisturbed`.

    Raises:
        Interrupted: after a signal, on all processes.
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
    """Until `keep`, let a signal stop this process at once: nothing of the work under way need be kept.

    Has no effect in one of several processes, which could not agree; nor in a thread: Python delivers signals to the
    main thread.

    Args:
        doing: the work, for the message, such as "while the network was compiled".

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
    """End `drop_at_once`: signals are only recorded again."""
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
