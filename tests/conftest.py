"""What all tests share: their kind by their folder, one thread, a cache of decoded images, and fixtures of several."""

import gc
import os
from pathlib import Path

import pytest
from helpers.fixtures import (
    _cache,
    _composed_once,
    _loaded_once,
    _no_waiting_for_the_disk,
    _one_thread,
    _plugins_found_once,
    made,
)
from helpers.inception import inception_weights
from helpers.peers import peer

__all__ = [
    "_cache",
    "_composed_once",
    "_loaded_once",
    "_no_waiting_for_the_disk",
    "_one_thread",
    "_plugins_found_once",
    "inception_weights",
    "made",
    "peer",
]

HERE = Path(__file__).parent
os.environ.pop("COLUMNS", None)  # pytest-xdist tells its workers of 80, as if they wrote to a terminal
KINDS = {
    ".": "unit",
    "adapters": "unit",
    "assembly": "integration",
    "autoencoding": "unit",
    "codecs": "unit",
    "commands": "e2e",
    "conditions": "unit",
    "config": "unit",
    "contracts": "integration",
    "data": "unit",
    "diffusion": "unit",
    "docs": "e2e",
    "evaluation": "unit",
    "experiments": "integration",
    "features": "unit",
    "goldens": "integration",
    "gpu": "integration",
    "guidance": "unit",
    "interop": "unit",
    "likelihood": "unit",
    "metrics": "unit",
    "modalities": "unit",
    "networks": "unit",
    "perceptual": "unit",
    "report": "integration",
    "restoration": "unit",
    "samplers": "unit",
    "slurm": "e2e",
    "study": "integration",
    "tenants": "integration",
    "text": "unit",
    "training": "integration",
    "ui": "integration",
}
"""The marker of a folder's tests: `unit`, `integration` or `e2e`. A file or a test that has one itself keeps it."""


ORDER = ("e2e", "integration", "unit")
"""The files with the longest tests first: no process is to begin with one while the others have nothing left."""


@pytest.hookimpl(tryfirst=True)  # before markers select
def pytest_collection_modifyitems(items):
    places = {}
    for item in items:
        kind = next((mark.name for mark in item.iter_markers() if mark.name in ORDER), None)
        if kind is None and HERE in item.path.parents:
            kind = KINDS[item.path.relative_to(HERE).parts[0] if item.path.parent != HERE else "."]
            item.add_marker(kind)
        places.setdefault(item.path, ORDER.index(kind or "unit"))
    items.sort(key=lambda item: places[item.path])


def pytest_collectstart():
    """While modules are imported and tests are collected, next to nothing becomes garbage."""
    gc.disable()


def pytest_collection_finish():
    """What is loaded by now stays: looking through it for garbage, again and again, took a fifth of the time."""
    gc.enable()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)
