"""Fixtures of the folders whose tests run whole commands; a conftest takes them by importing them."""

import pytest
import torch

from langevin.samplers.generate import Generator


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """The sums of a convolution depend on the number of threads; these tests compare bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="package", autouse=True)
def _cache(tmp_path_factory):
    """Decoded images for these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANGEVIN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def made(monkeypatch):
    """Which pictures a model makes in this process, as it makes them."""
    numbers = []
    make = Generator._make

    def noted(self, denoise, indices, *rest):
        numbers.extend(indices)
        return make(self, denoise, indices, *rest)

    monkeypatch.setattr(Generator, "_make", noted)
    return numbers
