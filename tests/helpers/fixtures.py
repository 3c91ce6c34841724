"""Fixtures of all tests; the conftest of tests/ takes them by importing them."""

import functools
import os
import sys

import pytest
import torch

from helpers import composing, loading
from langevin.samplers.generate import SamplePipeline


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """The sums of a convolution depend on the number of threads; many tests compare bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    """Decoded images for the tests alone, decoded once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANGEVIN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _composed_once():
    """Hydra reads and merges the same files once."""
    with pytest.MonkeyPatch.context() as patch:
        composing.once(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def _loaded_once():
    """A checkpoint is looked through, unpickled, and its config read, once."""
    with pytest.MonkeyPatch.context() as patch:
        loading.once(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk():
    """What a crash of the machine would lose is not tested; test_files.py sees that it is asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _plugins_found_once():
    """A trainer looks through all installed packages for plugins of Lightning, twice in each run."""
    with pytest.MonkeyPatch.context() as patch:
        registry = sys.modules.get("lightning.fabric.utilities.registry")
        if registry is not None:  # else no test here needs Lightning, or imports it late, and is only slower
            patch.setattr(registry, "entry_points", functools.cache(registry.entry_points))
        yield


@pytest.fixture
def made(monkeypatch):
    """Which images a model makes in this process, as it makes them."""
    numbers = []
    make = SamplePipeline._make

    def noted(self, denoise, indices, *rest):
        numbers.extend(indices)
        return make(self, denoise, indices, *rest)

    monkeypatch.setattr(SamplePipeline, "_make", noted)
    return numbers
