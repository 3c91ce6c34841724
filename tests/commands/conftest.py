"""Runs of six steps, trained once for all tests of the commands."""

import pytest
import torch
from helpers.commands import TINY, call

# A little noise only, so that the pictures of a model that has learnt next to nothing are not black and white; big
# steps, and two channels a group of GroupNorm (one would be blind to time and label), so that its labels tell.
VISIBLE = (
    "model.channel_multipliers=[2]",
    "schedule.beta_end=2e-3",
    "optimizer.lr=1e-2",
    "lr_schedule.steps=0",
    "ema.max_decay=0.5",
    "trainer.max_steps=6",
)


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


@pytest.fixture(scope="package")
def train(tmp_path_factory):
    """Trains a tiny run and returns its folder."""
    folder = tmp_path_factory.mktemp("runs")

    def run(name, *overrides):
        result = call("train", *TINY, *VISIBLE, f"output_dir={folder}", f"name={name}", *overrides)
        assert result.status == 0, result.err
        return folder / name

    return run


@pytest.fixture(scope="package")
def labelled(train):
    """The folder of a class-conditional run, whose network is not the default one."""
    return train("labelled", "condition=class_label")


@pytest.fixture(scope="package")
def plain(train):
    """The folder of an unconditional run."""
    return train("plain")
