"""Fixtures of all tests; the conftest of tests/ takes them by importing them."""

import pytest
import torch

from helpers import composing
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
