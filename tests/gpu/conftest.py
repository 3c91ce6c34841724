"""Tests that need an NVIDIA GPU. ``LANGEVIN_GPU_REHEARSAL=1`` runs them on the CPU, smaller: for mistakes in the tests.

``LANGEVIN_GPU_RESULTS=FILE`` appends a JSON line to FILE as soon as a test is done.
"""

import json
import os
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
# The helpers of these folders are used here too.
sys.path += [str(HERE.parent / name) for name in ("training", "networks")]

REHEARSAL = os.environ.get("LANGEVIN_GPU_REHEARSAL") == "1"
MESSAGE = 600
"""The most characters of a failure that are written."""

# torch reads this once a process, when a matrix product is first computed. A run of its own has it from Lightning;
# here runs that are not deterministic come first.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("gpu")
            if not (REHEARSAL or torch.cuda.is_available()):
                item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU here"))


@pytest.fixture
def rehearsal():
    """Whether this is a rehearsal: sizes are small, and what a CPU does not have is left out."""
    return REHEARSAL


@pytest.fixture
def device():
    return "cpu" if REHEARSAL else "cuda"


@pytest.fixture(autouse=True)
def _whole_errors(monkeypatch):
    """An error in a run comes out of the command with its traceback; Hydra would print its last lines and exit."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")


@pytest.fixture(autouse=True)
def _switches():
    """Lightning leaves torch's global switches as a run had them."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    threads = torch.get_num_threads()  # DDP on a CPU sets it, and sums depend on it
    yield
    torch.set_num_threads(threads)
    cudnn.benchmark, cudnn.deterministic = before
    torch.use_deterministic_algorithms(False)
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.empty_cache()


_setup_seconds: dict[str, float] = {}


def pytest_runtest_logreport(report):
    path = os.environ.get("LANGEVIN_GPU_RESULTS")
    if not path or "gpu" not in report.keywords:
        return
    if report.when == "setup":
        _setup_seconds[report.nodeid] = report.duration
    # A test is done after its call; its setup may fail or skip it before, and its teardown fail after.
    if report.when == "call" or (not report.passed and not (report.when == "teardown" and report.skipped)):
        before = 0.0 if report.when == "setup" else _setup_seconds.get(report.nodeid, 0.0)
        line = {
            "test": report.nodeid.rpartition("/")[2],
            "outcome": report.outcome,
            "seconds": round(before + report.duration, 3),
            "figures": dict(report.user_properties),
            "message": message(report),
        }
        with Path(path).open("a") as file:
            file.write(json.dumps(line, default=str) + "\n")


def message(report):
    """The last lines of a failure, or why a test was skipped; empty for one that passed."""
    if report.passed:
        return ""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])[:MESSAGE]
    text = report.longreprtext.strip()
    if len(text) <= MESSAGE:
        return text
    end = text[-MESSAGE:]
    return end.partition("\n")[2] or end
