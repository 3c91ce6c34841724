import os
import signal
import stat
from pathlib import Path

import pytest

from langevin import interrupt
from langevin.interrupt import Interrupted, listen, received, requeue, stop_on_signal


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    monkeypatch.setattr(interrupt, "_received", None)
    monkeypatch.setattr(interrupt, "_listener", None)
    handlers = {each: signal.getsignal(each) for each in interrupt.SIGNALS}
    yield
    for each, handler in handlers.items():
        signal.signal(each, handler)


@pytest.mark.parametrize("each", interrupt.SIGNALS)
def test_a_signal_is_noted(each):
    listen()
    assert received() is None
    signal.raise_signal(each)
    assert received() == each.name


def test_after_a_while_of_listening_signals_do_what_they_did_before():
    before = signal.getsignal(signal.SIGINT)
    with interrupt.listening():
        signal.raise_signal(signal.SIGINT)
        assert received() == "SIGINT"
    assert (received(), signal.getsignal(signal.SIGINT)) == (None, before)


def test_a_second_ctrl_c_stops_at_once(capfd):
    listen()
    signal.raise_signal(signal.SIGINT)
    assert "Ctrl-C again stops at once" in capfd.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_work_stops_between_two_items():
    listen()
    items = stop_on_signal(range(5))
    assert [next(items), next(items)] == [0, 1]
    signal.raise_signal(signal.SIGUSR1)
    with pytest.raises(Interrupted, match="by SIGUSR1"):
        next(items)
    interrupt._received = None
    assert list(stop_on_signal("abc")) == ["a", "b", "c"]


def test_a_forked_process_ignores_the_signals():
    listen()
    child = os.fork()
    if child == 0:
        signal.raise_signal(signal.SIGTERM)
        os._exit(0 if received() is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


SCONTROL = """#!/bin/sh
echo "$@" >> {log}
case "$1" in
show) echo "JobId=7 JobName=x UserId=me(0) JobState={state} Reason=None Requeue=1" ;;
requeue) echo "{says}" >&2; exit {status} ;;
esac
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A job whose state and whose answer to a requeue are as told; what was asked of it."""
    log = tmp_path / "log"

    def pretend(state="RUNNING", status=0, says="", **variables):
        script = tmp_path / "scontrol"
        script.write_text(SCONTROL.format(log=log, state=state, status=status, says=says))
        script.chmod(script.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_PROCID"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"SLURM_JOB_ID": "7", **variables}.items():
            monkeypatch.setenv(name, value)
        return log

    return pretend


def asked(log: Path):
    return log.read_text().splitlines() if log.exists() else []


def test_a_job_goes_back_into_the_queue(slurm):
    log = slurm()
    assert requeue()
    assert asked(log)[-1] == "requeue 7"


def test_of_an_array_this_one_goes_back(slurm):
    log = slurm(SLURM_ARRAY_JOB_ID="5", SLURM_ARRAY_TASK_ID="3")
    assert requeue()
    assert asked(log)[-1] == "requeue 5_3"


def test_the_first_process_speaks_for_all(slurm):
    log = slurm(SLURM_PROCID="1")
    assert requeue()
    assert asked(log) == ["show job --oneliner 7"]


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING", "TIMEOUT"])
def test_a_job_that_somebody_has_cancelled_stays_so(slurm, state):
    log = slurm(state)
    assert not requeue()
    assert asked(log) == ["show job --oneliner 7"]


def test_slurm_may_have_been_faster(slurm):
    slurm("PENDING", 1, "Job is pending execution for job 7")
    assert requeue()
    slurm("RUNNING", 1, "Invalid job id specified")
    assert not requeue()


def test_without_a_job_there_is_no_queue(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert not requeue()
