"""Runs of six steps, trained once for all tests of the commands."""

import pytest
from helpers.commands import CLASSIFIER, TINY, call

# A little noise only, so that the images of a model that has learnt next to nothing are not black and white; and
# big steps, so that its labels tell.
VISIBLE = (
    "model.channel_multipliers=[2]",
    "schedule.beta_end=2e-3",
    "optimizer.lr=1e-2",
    "lr_schedule.steps=0",
    "ema.max_decay=0.5",
    "trainer.max_steps=6",
)


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
    return train("labelled", "conditions=[class_label]")


@pytest.fixture(scope="package")
def plain(train):
    """The folder of an unconditional run."""
    return train("plain")


@pytest.fixture(scope="package")
def classifier(tmp_path_factory):
    """The folder of a classifier's run, on the noise process of the other runs."""
    folder = tmp_path_factory.mktemp("classifiers")
    result = call("train", *CLASSIFIER, "schedule.beta_end=2e-3", f"output_dir={folder}", "name=classifier")
    assert result.status == 0, result.err
    return folder / "classifier"
