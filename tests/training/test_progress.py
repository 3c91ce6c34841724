import re
import time
from itertools import count

import pytest
from training_helpers import QUIET, VALIDATED, column, read_csv, train

from langevin import bars as bar_module
from langevin.training.callbacks import progress as module
from langevin.training.callbacks.evaluation import Evaluate
from langevin.training.callbacks.progress import Progress
from langevin.training.callbacks.samples import SampleGrid
from langevin.training.module import DiffusionModule


def rates(run):
    return column(read_csv(run.directory / "metrics.csv"), "train/images_per_second")


@pytest.fixture
def slow_steps(monkeypatch):
    """Training steps that take at least 50 ms, so that 8 images come at most at 160 a second."""
    training_step = DiffusionModule.training_step

    def step(self, batch, batch_idx):
        time.sleep(0.05)
        return training_step(self, batch, batch_idx)

    monkeypatch.setattr(DiffusionModule, "training_step", step)


def test_the_speed_is_that_of_the_images(tmp_path, slow_steps):
    """Under all circumstances at most 160 a second; under none, of a machine that trains at all, below 1."""
    measured = rates(train(tmp_path, *QUIET))
    assert list(measured) == [1, 2, 3, 4, 5, 6]
    assert all(1 < rate <= 160 for rate in measured.values())


def test_the_speed_counts_all_micro_batches_of_a_step(tmp_path, slow_steps):
    measured = rates(train(tmp_path, *QUIET, "trainer.accumulate_grad_batches=2"))
    assert list(measured) == [1, 2, 3, 4, 5, 6]
    assert all(0.5 < rate <= 80 for rate in measured.values())


def test_the_speed_is_exact_by_a_clock_of_our_own(tmp_path, monkeypatch):
    """A clock that moves on by 1 s at every look; it is looked at once every 2 steps."""
    seconds = count()
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(seconds)))
    run = train(tmp_path, "callbacks=[progress]", "callbacks.progress.every_n_steps=2", "batch_size=12")
    assert rates(run) == dict.fromkeys((2, 3, 4, 5, 6), 24.0)


PAUSE = 10.0


@pytest.mark.parametrize("what", ["samples", "evaluation", "validation"])
def test_what_goes_on_in_between_is_left_out(tmp_path, monkeypatch, what):
    """Sampling, evaluation and validation that take 10 s, by a clock of the CPU time, at steps that take much less."""
    pauses = []

    def pause(*args):
        pauses.append(PAUSE)

    options = {
        "samples": ("callbacks=[progress,samples]", "callbacks.samples.every_n_steps=2"),
        "evaluation": ("callbacks=[progress]", "metrics=[class_accuracy]", "evaluation.every_n_steps=2"),
        "validation": ("callbacks=[progress]", *VALIDATED),
    }[what]
    owner, name = {
        "samples": (SampleGrid, "act"),
        "evaluation": (Evaluate, "act"),
        "validation": (DiffusionModule, "on_validation_epoch_end"),
    }[what]
    monkeypatch.setattr(owner, name, pause)
    monkeypatch.setattr(module.time, "monotonic", lambda: time.process_time() + sum(pauses))
    run = train(tmp_path, *options, "callbacks.progress.every_n_steps=1", "trainer.max_steps=3")
    assert pauses
    assert rates(run)[3] > 8 / PAUSE


def test_the_bar_shows_steps_loss_and_speed(tmp_path):
    run = train(tmp_path, *QUIET)
    last = run.err.splitlines()[-1]
    assert re.search(r"^train: 100%.*6/6 .*loss \d\.\d{4}, \d+ images/s", last), run.err
    loss = float(re.search(r"loss ([\d.]+)", last)[1])
    assert loss == pytest.approx(column(run.rows, "train/loss")[6], abs=1e-4)
    resumed = train(tmp_path, *QUIET, "trainer.max_steps=8")
    assert "6/8" in resumed.err
    assert "0/8" not in resumed.err


def test_a_log_file_has_lines(tmp_path):
    run = train(tmp_path, *QUIET)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", run.err)
    lines = run.err.splitlines()
    assert all(re.match(r"train: +\d+%\|[#0-9 ]*\| \d/6 \[", line) for line in lines), run.err
    assert "0/6" in lines[0]
    assert "6/6" in lines[-1]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_bar_closes_on_an_error(tmp_path, monkeypatch, error):
    bars = []

    class Bar(bar_module.LogBar):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.closed = 0
            bars.append(self)

        def close(self):
            self.closed += 1
            super().close()

    def fail(self, trainer, batch):
        raise error("in the midst of sampling")

    monkeypatch.setattr(bar_module, "LogBar", Bar)
    monkeypatch.setattr(SampleGrid, "act", fail)
    options = ("callbacks=[progress,samples]", "callbacks.samples.every_n_steps=2")
    run = train(tmp_path, *options, status=1)
    assert [bar.closed for bar in bars if bar.desc.startswith("train")] == [1]
    assert "2/6" in run.err
    if error is RuntimeError:
        assert "in the midst of sampling" in run.err


def test_no_bar_on_other_ranks():
    progress = Progress(batch_size=8)
    progress.disable()

    class Trainer:
        global_step, max_steps = 0, 5

    progress.on_train_start(Trainer, None)
    assert progress._bar is None
    progress.enable()
    progress.on_train_start(Trainer, None)
    assert progress._bar is not None
    progress.on_train_end(Trainer, None)
    assert progress._bar is None
