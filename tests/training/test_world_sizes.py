"""One, two and four processes (gloo): the same run, and the same measures of a model."""

import json

import numpy as np
import pytest
from helpers.commands import CLASSIFIER, ROOT, call
from helpers.digits import digits
from PIL import Image
from training_helpers import TINY, column, start, train_by

pytestmark = pytest.mark.e2e

STEPS = 100
WORLDS = (1, 2, 4)
# Conditions are dropped here; dropout inside the network is what every process draws for itself.
OPTIONS = (
    *TINY,
    "callbacks=[checkpoint]",
    "batch_size=16",
    "model.dropout=0",
    f"trainer.max_steps={STEPS}",
    "trainer.val_check_interval=10",
    "trainer.limit_val_batches=5",
)


def run_by(processes, folder, *options):
    return train_by(processes, folder, *OPTIONS, *options)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worlds")
    return [run_by(processes, folder) for processes in WORLDS]


def assert_same_curves(runs, steps):
    for name in ("train/loss", "train/grad_norm", "val/loss"):
        first, *others = (column(run.rows, name) for run in runs)
        assert len(first) == (steps // 10 if name == "val/loss" else steps)
        for other in others:
            assert other == pytest.approx(first, rel=1e-5, abs=1e-7), name  # a learned loss passes 0


@pytest.mark.slow
def test_the_curves_are_the_same(runs):
    """Images, times, noise, dropped labels, the global batch and the learning rate: of the run, not of a process."""
    assert_same_curves(runs, STEPS)
    losses = column(runs[0].rows, "train/loss")
    assert sum(losses[step] for step in range(91, 101)) < 0.8 * sum(losses[step] for step in range(1, 11))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("trainer.accumulate_grad_batches=2",),
        ("objective=vlb", "schedule.num_steps=4", "time_sampler=loss_aware", "time_sampler.history=2"),
        ("objective=uncertainty",),
    ],
    ids=["micro-batches", "importance of times", "weights of the objective"],
)
def test_so_they_are_with(options, tmp_path):
    steps = 20  # the bound's large gradients let differences of rounding grow
    assert_same_curves([run_by(n, tmp_path, *options, f"trainer.max_steps={steps}") for n in (1, 4)], steps)


@pytest.mark.slow
def test_so_they_are_with_hints_of_the_data(tmp_path):
    images, labels = digits()
    for index in range(40):
        folder, image = tmp_path / "images" / str(labels[index]), images[index, ..., 0]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.png")
        Image.fromarray(np.ascontiguousarray(image.T)).save(folder / f"{index}.control.png")
    data = ("data=image_folder", f"data.path={tmp_path}/images", "data.image_size=8", "data.channels=1")
    hints = ("conditions=[class_label,hint]", "conditions.hint.kind=pairs", "conditions.hint.dropout=0.3")
    given = [*data, *hints, "trainer.max_steps=8", "trainer.val_check_interval=null"]
    one, two = (column(run_by(n, tmp_path / "runs", *given).rows, "train/loss") for n in (1, 2))
    assert len(one) == 8
    assert two == pytest.approx(one, rel=1e-5)


@pytest.mark.slow
def test_the_measures_of_a_model_are_the_same(runs, tmp_path):
    done = call("train", *CLASSIFIER, f"output_dir={tmp_path}", "name=classifier")
    assert done.status == 0, done.err
    measured = []
    for processes in WORLDS:
        out = tmp_path / f"by_{processes}"
        start(
            ROOT / "evaluate.py",
            f"checkpoint={runs[0].directory}",
            "metrics=[fid,inception_score]",
            "features=classifier",
            f"features.checkpoint={tmp_path / 'classifier'}",
            "metrics.fid.min_samples=10",
            "metrics.inception_score.splits=2",
            "num_samples=50",
            "batch_size=20",
            "accelerator=cpu",
            f"devices={processes}",
            f"out={out}",
        )
        measured.append(json.loads((out / "metrics.json").read_text())["metrics"])
    one, *others = measured  # FID and IS by name, were the features Inception's
    assert sorted(name.partition("_classifier")[0] for name in one) == [
        "classifier_score",
        "classifier_score_std",
        "fd",
    ]
    for other in others:
        assert other == pytest.approx(one, rel=1e-9)
