import errno
import hashlib
import os
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.images import shown
from omegaconf import OmegaConf
from PIL import Image
from training_helpers import BUSY, QUIET, VALIDATED, column, differing, numbers, train, trained

from langevin.assembly.saved import load_model
from langevin.checkpoint import read_checkpoint
from langevin.content import read_content
from langevin.errors import UserError
from langevin.evaluation.evaluation import Evaluation
from langevin.spec import DataSpec
from langevin.training.callbacks import checkpoint as module
from langevin.training.callbacks.checkpoint import Checkpoint, share
from langevin.training.module import DiffusionModule


def names(run):
    """All but the ends before the last."""
    return sorted(name for name in os.listdir(run.directory / "checkpoints") if not name.startswith("last-"))


def step_of(run, name):
    return read_checkpoint(run.directory / "checkpoints" / name)["global_step"]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def saves(monkeypatch):
    """The steps at which the run is saved."""
    steps, save = [], Checkpoint._save

    def look(self, trainer, names):
        steps.append(trainer.global_step)
        save(self, trainer, names)
        assert step_of_last(self) == trainer.global_step

    def step_of_last(callback):
        return read_checkpoint(callback.directory / "last.ckpt")["global_step"]

    monkeypatch.setattr(Checkpoint, "_save", look)
    return steps


def test_the_end_is_saved(tmp_path, saves):
    run = train(tmp_path, *QUIET, "trainer.max_steps=3")
    assert saves == [3]
    assert names(run) == ["last.ckpt"]
    assert step_of(run, "last.ckpt") == 3
    extended = train(tmp_path, *QUIET, "trainer.max_steps=5")
    assert saves == [3, 5]
    assert names(extended) == ["last.ckpt"]  # no last-v1.ckpt
    assert step_of(extended, "last.ckpt") == 5


def test_it_saves_when_the_time_has_come(tmp_path, saves):
    options = (*QUIET, "trainer.max_steps=4", "trainer.accumulate_grad_batches=2")
    train(tmp_path, *options, "callbacks.checkpoint.every_minutes=1e-9", name="often")
    assert saves == [1, 2, 3, 4]
    saves.clear()
    train(tmp_path, *options, "callbacks.checkpoint.every_minutes=60", name="seldom")
    assert saves == [4]


@pytest.mark.slow
def test_it_saves_by_steps(tmp_path, saves):
    options = (*QUIET, "trainer.max_steps=5", "callbacks.checkpoint.every_n_steps=2")
    train(tmp_path, *options, name="steps")
    assert saves == [2, 4, 5]
    saves.clear()
    train(tmp_path, *options, "trainer.max_steps=6", name="steps")
    assert saves == [6]
    saves.clear()
    train(tmp_path, *options, "callbacks.checkpoint.every_minutes=1e-9", name="both")
    assert saves == [1, 2, 3, 4, 5]


def test_by_steps_it_does_not_look_at_the_clock(tmp_path, saves, monkeypatch):
    """By a clock that moves on by an hour at every look."""
    now = iter(range(0, 10**7, 3600))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(now)))
    train(tmp_path, "callbacks=[checkpoint]", "callbacks.checkpoint.every_n_steps=4", "trainer.max_steps=6")
    assert saves == [4, 6]


@pytest.mark.parametrize("decision", [True, False])
def test_several_processes_do_what_the_first_one_says(tmp_path, monkeypatch, decision):
    """Their clocks may differ, and a save needs them all; since asking costs time, it is done every tenth step."""
    clocks, due = [], {}

    def broadcast(mine):
        clocks.append(mine)
        return decision

    monkeypatch.setattr(
        Checkpoint, "_save_where", lambda self, trainer, is_due: due.update({trainer.global_step: is_due})
    )
    callback = Checkpoint(tmp_path, {}, every_minutes=1e-9 if decision is False else 60)
    strategy = SimpleNamespace(broadcast=broadcast)
    for step in range(25):
        trainer = SimpleNamespace(global_step=step, world_size=2, accumulate_grad_batches=1, strategy=strategy)
        callback.on_train_batch_start(trainer, None, None, step)
    assert clocks == [not decision] * 2
    assert due == {step: decision and step in (10, 20) for step in range(1, 25)}


@pytest.mark.slow
def test_the_clock_starts_anew_at_each_save(tmp_path, saves, monkeypatch):
    """By a clock that moves on by 2 s at every look: 2 looks of 5 seconds' wait are too early, the third is not."""
    now = iter(range(0, 10_000, 2))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(now)))
    train(tmp_path, "callbacks=[checkpoint]", "callbacks.checkpoint.every_minutes=0.0834", "trainer.max_steps=10")
    assert saves == [3, 6, 9, 10]


@pytest.mark.slow
def test_by_itself_it_saves_after_a_minute_and_for_a_hundredth_of_the_time(tmp_path, saves, monkeypatch):
    """By a clock that moves on by 10 s at every look: a save takes 10 s, so that the next may come after 1000 s."""
    now = iter(range(0, 100_000, 10))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(now)))
    train(tmp_path, "callbacks=[checkpoint]", "trainer.max_steps=110", "trainer.log_every_n_steps=100")
    assert saves == [7, 108, 110]


@pytest.mark.slow
def test_copies_stay_as_they_are(tmp_path, monkeypatch):
    """Hard links share one file: what is saved later must not be written into it."""
    linked = {}

    def look(source, target):
        share(source, target)
        if source.name != "last.ckpt":  # an end that makes way
            linked[source.name] = digest(source)
        assert source.lstat().st_ino == target.lstat().st_ino  # at no cost in space

    monkeypatch.setattr(module, "share", look)
    options = (*QUIET, "callbacks.checkpoint.keep_every_n_steps=2")
    run = train(tmp_path, *options)
    first = dict(linked)
    train(tmp_path, *options, "trainer.max_steps=7")
    assert linked == first
    assert names(run) == ["last.ckpt", "step_00000002.ckpt", "step_00000004.ckpt", "step_00000006.ckpt"]
    assert set(linked) == set(names(run)) - {"last.ckpt"}
    for name, content in linked.items():
        path = run.directory / "checkpoints" / name
        assert digest(path) == content
        assert path.stat().st_nlink <= 2  # the end before the last may be the same file
        assert step_of(run, name) == int(name[5:13])
    assert step_of(run, "last.ckpt") == 7
    short = train(tmp_path, *QUIET, "trainer.max_steps=4", name="short")
    assert differing(numbers(run.directory / "checkpoints" / "step_00000004.ckpt"), trained(short)) == []


def test_a_file_system_without_hard_links(tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    run = train(tmp_path, *QUIET, "callbacks.checkpoint.keep_every_n_steps=2", "trainer.max_steps=3")
    assert names(run) == ["last.ckpt", "step_00000002.ckpt"]
    assert step_of(run, "step_00000002.ckpt") == 2
    assert step_of(run, "last.ckpt") == 3


def test_sharing_replaces_and_leaves_nothing_behind(tmp_path):
    for name in ("a", "b", ".b"):
        (tmp_path / name).write_text(f"old {name}")
    share(tmp_path / "a", tmp_path / "b")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    assert (tmp_path / "b").read_text() == "old a"


@pytest.mark.parametrize("moment", [pytest.param("before the first copy", marks=pytest.mark.slow), "before last.ckpt"])
def test_a_copy_that_a_kill_prevented_is_made_when_the_run_is_resumed(tmp_path, monkeypatch, scripted, moment):
    """The copies are written before last.ckpt: a run killed in between comes by there again."""
    options = (*BY["val/loss"], "callbacks.checkpoint.keep_every_n_steps=2", "trainer.max_steps=3")

    def die(*arguments):
        raise KeyboardInterrupt

    scripted({2: 3.0})
    with monkeypatch.context() as patch:
        patch.setattr(*((Checkpoint, "_save") if moment == "before the first copy" else (module, "share")), die)
        killed = train(tmp_path, *options, status=1)
    assert not killed.last.exists()
    scripted({2: 3.0})
    resumed = train(tmp_path, *options)
    assert {name: step_of(resumed, name) for name in names(resumed)} == {
        "best.ckpt": 2,
        "last.ckpt": 3,
        "step_00000002.ckpt": 2,
    }


@pytest.fixture
def scripted(monkeypatch):
    """Validation losses and class accuracies as given, by step."""

    def script(values):
        def validation_step(self, batch, batch_idx):
            self.log("val/loss", torch.tensor(values[self.global_step]), batch_size=1)

        monkeypatch.setattr(DiffusionModule, "validation_step", validation_step)
        given = iter(values.values())
        monkeypatch.setattr(Evaluation, "compute", lambda self: {"class_accuracy": {"class_accuracy": next(given)}})

    return script


BY = {
    "val/loss": (*QUIET, *VALIDATED, "callbacks.checkpoint.monitor=val/loss"),
    "eval/class_accuracy": (
        *QUIET,
        "metrics=[class_accuracy]",
        "evaluation.every_n_steps=2",
        "callbacks.checkpoint.monitor=eval/class_accuracy",
    ),
}


@pytest.mark.parametrize(
    ("monitor", "mode", "best"),
    [
        ("val/loss", "min", 4),
        pytest.param("val/loss", "max", 6, marks=pytest.mark.slow),
        pytest.param("eval/class_accuracy", "max", 6, marks=pytest.mark.slow),
    ],
)
def test_the_best_is_kept(tmp_path, scripted, monitor, mode, best):
    scripted({2: 3.0, 4: 1.0, 6: 5.0, 8: 2.0})
    run = train(tmp_path, *BY[monitor], f"callbacks.checkpoint.mode={mode}", "trainer.max_steps=8")
    seen = column(run.rows, monitor)
    assert seen == {2: 3.0, 4: 1.0, 6: 5.0, 8: 2.0}
    assert {"min": min, "max": max}[mode](seen, key=seen.get) == best
    assert names(run) == ["best.ckpt", "last.ckpt"]
    assert step_of(run, "best.ckpt") == best
    assert step_of(run, "last.ckpt") == 8
    whole = train(tmp_path, *QUIET, f"trainer.max_steps={best}", name="whole")
    assert differing(numbers(run.directory / "checkpoints" / "best.ckpt"), trained(whole)) == []


@pytest.mark.parametrize("monitor", ["val/loss", pytest.param("eval/class_accuracy", marks=pytest.mark.slow)])
def test_a_resumed_run_knows_its_best(tmp_path, scripted, monitor):
    options = (*BY[monitor], "trainer.log_every_n_steps=2")
    scripted({2: 1.0, 4: 3.0})
    train(tmp_path, *options, "trainer.max_steps=4")
    scripted({6: 2.0, 8: 1.5})
    run = train(tmp_path, *options, "trainer.max_steps=8")
    assert step_of(run, "best.ckpt") == 2
    assert read_checkpoint(run.last)["callbacks"]["Checkpoint"]["best"] == 1.0
    scripted({10: 0.5, 12: 0.75})
    run = train(tmp_path, *options, "trainer.max_steps=12")
    assert step_of(run, "best.ckpt") == 10
    assert column(run.rows, monitor) == {2: 1.0, 4: 3.0, 6: 2.0, 8: 1.5, 10: 0.5, 12: 0.75}


def test_the_best_of_a_real_validation(tmp_path):
    run = train(tmp_path, *BY["val/loss"], "callbacks.checkpoint.mode=max")
    losses = column(run.rows, "val/loss")
    assert list(losses) == [2, 4, 6]
    best = max(losses, key=losses.get)
    assert best != 6
    assert step_of(run, "best.ckpt") == best


def test_what_is_no_number_is_never_the_best(tmp_path, scripted):
    scripted({2: float("nan"), 4: 3.0, 6: float("nan")})
    run = train(tmp_path, *BY["val/loss"])
    assert step_of(run, "best.ckpt") == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("callbacks.checkpoint.monitor=val/lost", *VALIDATED),
            r"callbacks.checkpoint.monitor: is val/lost, which nothing logs; allowed: val/loss, val/mse$",
        ),
        (
            (*BY["eval/class_accuracy"][2:], "callbacks.checkpoint.monitor=eval/fid@8", "metrics=[class_accuracy]"),
            r"callbacks.checkpoint.monitor: is eval/fid@8, which nothing logs; allowed: eval/class_accuracy$",
        ),
        (
            ("callbacks.checkpoint.monitor=val/loss",),
            r"callbacks.checkpoint.monitor: is val/loss, which nothing logs; there is no validation: set trainer",
        ),
        (
            ("callbacks.checkpoint.monitor=eval/class_accuracy", *VALIDATED),
            r"monitor: is eval/class_accuracy, which nothing logs; there is no evaluation: choose metrics",
        ),
        (
            ("callbacks.checkpoint.monitor=loss", *VALIDATED),
            r"callbacks.checkpoint.*monitor.*loss; allowed: a name that begins with val/ or eval/, or null$",
        ),
    ],
)
def test_a_value_that_is_not_computed_is_reported(tmp_path, options, message):
    run = train(tmp_path, *QUIET, *options, status=1)
    assert re.search(message, run.err, re.MULTILINE), run.err
    assert "Traceback" not in run.err


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return train(tmp_path_factory.mktemp("finished"), *BUSY)


def test_the_model_is_rebuilt_with_its_ema_weights(finished):
    model = load_model(finished.last)
    assert model.step == 6
    assert model.cfg == OmegaConf.load(finished.directory / "config.yaml")
    content = read_content(finished.directory).sha256
    assert model.spec.plain() == DataSpec.of_images(1, 8, 10, content).plain()
    assert not model.denoiser.training
    weights, saved = model.denoiser.network.state_dict(), trained(finished)
    assert len(weights) > 50
    for name, value in weights.items():
        assert torch.equal(value, saved[f"ema.network.{name}"])
    assert differing(weights, {name: saved[f"model.network.{name}"] for name in weights})


def test_the_rebuilt_model_makes_the_images_that_training_showed(finished):
    model = load_model(finished.last)
    (batch,) = model.generator(model.cfg, None)(model.denoiser, range(4), 0, 4, "cpu")
    page = np.asarray(Image.open(finished.directory / "samples" / "samples_00000006.png"))
    rows = shown(page, rows=2, columns=2, captions=True)
    assert np.array_equal(np.stack([image for row in rows for image in row]), batch.samples[:, 0])


def test_a_checkpoint_that_does_not_fit_its_config_is_reported(tmp_path, finished):
    content = read_checkpoint(finished.last)
    content["langevin"]["config"] = content["langevin"]["config"].replace("channels: 32", "channels: 64")
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=r"other.ckpt does not fit the config stored in it"):
        load_model(tmp_path / "other.ckpt")


def test_weights_that_are_not_finite_do_not_take_the_place_of_good_ones(tmp_path):
    often = (*QUIET, "callbacks.checkpoint.every_minutes=1e-9")
    train(tmp_path, *often, "trainer.max_steps=2")
    run = train(tmp_path / "high", *often, "optimizer.lr=1e30", "lr_schedule.steps=0", status=1)
    assert "the weights are not finite any more; nothing of it was saved" in run.err
    assert "Traceback" not in run.err
    for path in (run.directory / "checkpoints").glob("*.ckpt"):
        assert all(value.isfinite().all() for value in numbers(path).values() if value.is_floating_point())
