"""Sample grids, trajectories and evaluations in the course of training."""

import os

import numpy as np
import pytest
import torch
from helpers.images import shown
from PIL import Image
from training_helpers import BUSY, QUIET, column, train

from langevin.assembly.saved import load_model
from langevin.evaluation.evaluation import Evaluation
from langevin.images import to_uint8
from langevin.metrics.reference import Reference
from langevin.training.callbacks.samples import SampleGrid


def pixels(path):
    return np.asarray(Image.open(path))


def samples(run, step):
    """4 samples in 2 columns, each above its class."""
    return shown(pixels(run.directory / "samples" / f"samples_{step:08d}.png"), 2, 2, captions=True)


def trajectory(run, step):
    """2 samples of 2 rows, at 2 times and the end, with labels above and to the left."""
    return shown(pixels(run.directory / "samples" / f"trajectory_{step:08d}.png"), 4, 3, heads=True)


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    return train(tmp_path_factory.mktemp("busy"), *BUSY, "trainer.max_steps=5")


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """A run that learns nothing."""
    return train(tmp_path_factory.mktemp("still"), *BUSY, "trainer.max_steps=4", "optimizer.lr=0")


def test_images_are_named_by_their_steps(busy):
    """Every other step, and at the end, which is no other step."""
    expected = [f"{name}_{step:08d}.png" for name in ("samples", "trajectory") for step in (2, 4, 5)]
    assert sorted(os.listdir(busy.directory / "samples")) == expected


@pytest.mark.parametrize("name", ["samples", "trajectory"])
def test_the_noise_is_the_same_every_time(busy, still, name):
    def made(run, step):
        return pixels(run.directory / "samples" / f"{name}_{step:08d}.png")

    assert np.array_equal(made(still, 2), made(still, 4))
    assert not np.array_equal(made(busy, 2), made(busy, 4))


def test_samples_are_those_of_the_ema_weights(busy):
    model = load_model(busy.last)
    (batch,) = model.generator(model.cfg, None)(model.denoiser, range(4), 0, 4, "cpu")
    made = [image for row in samples(busy, 5) for image in row]
    for image, expected in zip(made, batch.samples[:, 0].numpy(), strict=True):
        assert np.array_equal(image, expected)


def test_a_trajectory_goes_from_noise_to_the_sample(busy):
    """x_t above, the predicted x below, and at the end of both rows the finished sample."""
    model = load_model(busy.last)
    seen = []
    generator = model.generator(model.cfg, None)
    (batch,) = generator(
        model.denoiser, range(2), 0, 2, "cpu", lambda x_t, t, prediction: seen.append((x_t, prediction.x))
    )
    rows = trajectory(busy, 5)
    assert len(seen) == 2
    for index in range(2):
        for part in (0, 1):
            row = rows[2 * index + part]
            for image, moment in zip(row[:2], seen, strict=True):
                assert np.array_equal(image, to_uint8(moment[part])[index, 0].numpy())
            assert np.array_equal(row[2], batch.samples[index, 0].numpy())
    assert not np.array_equal(rows[0][0], rows[1][0])


def test_seeds_and_columns(tmp_path):
    options = (
        "callbacks=[progress,samples]",
        "callbacks.samples.num_samples=5",
        "callbacks.samples.columns=3",
        "trainer.max_steps=1",
    )
    first = train(tmp_path, *options, name="first")
    other = train(tmp_path, *options, "callbacks.samples.seed=1", name="other")
    a, b = (pixels(run.directory / "samples" / "samples_00000001.png") for run in (first, other))
    assert a.shape[1] == (3 * 9 + 1) * 8
    assert not np.array_equal(a, b)


def test_evaluation_values_are_those_of_the_samples(busy):
    """The number in the log, from samples made here by the model in the last checkpoint."""
    model = load_model(busy.last)
    from langevin.assembly.run import make_data, make_evaluation

    data = make_data(model.cfg)
    data.prepare_data()
    evaluation = make_evaluation(model.cfg)
    evaluation.prepare(8, Reference(data.train_set.samples, data.train_set.labels), {"label": torch.arange(8)})
    evaluation.gather()
    for batch in model.generator(model.cfg, None)(model.denoiser, range(8), 0, 8, "cpu"):
        evaluation.add(batch)
    values = column(busy.rows, "eval/class_accuracy")
    assert list(values) == [2, 4, 5]
    assert {"class_accuracy": values[5]} == evaluation.compute()["class_accuracy"]
    assert "step 5: class_accuracy" in busy.out + busy.err


def test_evaluation_starts_anew_each_time(still, monkeypatch, tmp_path):
    """The samples of an earlier round are forgotten, and the reference is counted once."""
    values = column(still.rows, "eval/class_accuracy")
    assert values[2] == values[4]
    rounds, references = [], []
    add, gather = Evaluation.add, Reference.gather
    monkeypatch.setattr(Evaluation, "add", lambda self, *a: (rounds.append(a[0].indices.tolist()), add(self, *a))[1])
    monkeypatch.setattr(Reference, "gather", lambda self, *a: (references.append(self), gather(self, *a))[1])
    train(
        tmp_path,
        *QUIET,
        "metrics=[class_accuracy]",
        "evaluation.every_n_steps=2",
        "evaluation.batch_size=5",
        "trainer.max_steps=4",
    )
    assert rounds == [[0, 1, 2, 3, 4], [5, 6, 7]] * 2
    assert len(references) == 1


def test_no_gradient_is_kept(tmp_path, monkeypatch):
    grad = []
    act = SampleGrid.act
    monkeypatch.setattr(SampleGrid, "act", lambda *a: (grad.append(torch.is_grad_enabled()), act(*a))[1])
    train(tmp_path, "callbacks=[samples]", "callbacks.samples.num_samples=1", "trainer.max_steps=1")
    assert grad == [False]
