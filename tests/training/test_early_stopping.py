import json
import re

import pytest
import torch
from helpers.commands import ROOT
from training_helpers import QUIET, TINY, VALIDATED, column, differing, start, train, trained

from langevin.checkpoint import read_checkpoint
from langevin.evaluation.evaluation import Evaluation
from langevin.runs import find_runs
from langevin.training.module import DiffusionModule

STOPS = (
    "callbacks=[checkpoint,progress,early_stopping]",
    "callbacks.progress.every_n_steps=1",
    "callbacks.early_stopping.patience=2",
    *VALIDATED,
    "trainer.max_steps=20",
)
LOSSES = {2: 3.0, 4: 1.0, 6: 1.5, 8: float("nan"), 10: 0.9, 12: 0.8, 14: 0.85, 16: 0.81, 18: 0.7, 20: 0.6}


@pytest.fixture
def scripted(monkeypatch):
    """Replaces the value of each validation, and of each evaluation, by given ones."""

    def script(losses):
        def validation_step(self, batch, batch_idx):
            self.log("val/loss", torch.tensor(losses[self.global_step]), batch_size=1)

        monkeypatch.setattr(DiffusionModule, "validation_step", validation_step)
        given = iter(losses.values())
        monkeypatch.setattr(Evaluation, "compute", lambda self: {"class_accuracy": {"class_accuracy": next(given)}})

    script(LOSSES)
    return script


def note(run):
    return json.loads((run.directory / "stopped_early.json").read_text())


def test_stops_when_nothing_has_improved_for_so_many_validations(tmp_path, scripted):
    run = train(tmp_path, *STOPS)
    assert list(column(run.rows, "val/loss")) == [2, 4, 6, 8]
    assert read_checkpoint(run.last)["global_step"] == note(run)["step"] == 8
    assert "step 8: stopped early: val/loss has not improved in 2 values in a row; the best was 1" in run.err + run.out
    ((state,),) = find_runs(tmp_path).values()
    assert (state.state, state.step, state.max_steps) == ("done", 8, 20)


def test_a_run_that_has_stopped_is_done(tmp_path, scripted):
    first = train(tmp_path, *STOPS)
    again = train(tmp_path, *STOPS)
    assert re.search(r"run is done: it stands at step 8 of trainer.max_steps=20; it stopped early", again.out)
    assert again.rows == first.rows


@pytest.mark.slow
def test_more_patience_resumes_it_with_its_counts(tmp_path, scripted):
    train(tmp_path, *STOPS)
    scripted({**LOSSES, 10: 1.2})
    resumed = train(tmp_path, *STOPS, "callbacks.early_stopping.patience=3")
    assert note(resumed)["step"] == 10
    assert list(column(resumed.rows, "val/loss")) == [2, 4, 6, 8, 10]
    end = train(tmp_path, *QUIET, *VALIDATED, "trainer.max_steps=12")
    assert read_checkpoint(end.last)["global_step"] == 12


@pytest.mark.slow
@pytest.mark.parametrize("end", [6, 7])
def test_a_resumed_run_stops_where_an_undisturbed_one_does(tmp_path, scripted, end):
    whole = train(tmp_path, *STOPS, name="whole")
    train(tmp_path, *STOPS, f"trainer.max_steps={end}")
    resumed = train(tmp_path, *STOPS)
    assert f"from step {end} to 20" in resumed.out
    assert note(resumed) == note(whole)
    assert differing(trained(resumed), trained(whole)) == []
    assert resumed.rows == whole.rows


def test_a_run_that_reaches_its_end_has_not_stopped_early(tmp_path, scripted):
    run = train(tmp_path, *STOPS, "trainer.max_steps=8")
    assert not (run.directory / "stopped_early.json").exists()


@pytest.mark.parametrize(
    ("settings", "end"),
    [
        (["callbacks.early_stopping.min_delta=0.15"], 8),
        pytest.param(["callbacks.early_stopping.patience=3"], 20, marks=pytest.mark.slow),
        (["callbacks.early_stopping.mode=max"], 6),
    ],
)
def test_what_counts_as_better(tmp_path, scripted, settings, end):
    run = train(tmp_path, *STOPS, *settings)
    assert read_checkpoint(run.last)["global_step"] == end


def test_follows_an_evaluation_by_a_pattern(tmp_path, scripted):
    evaluated = ("metrics=[class_accuracy]", "evaluation.every_n_steps=2", "trainer.val_check_interval=null")
    monitor = ("callbacks.early_stopping.monitor=eval/class_acc*", "callbacks.early_stopping.mode=max")
    run = train(tmp_path, *STOPS, *evaluated, *monitor)
    assert read_checkpoint(run.last)["global_step"] == 6


@pytest.mark.slow
def test_two_processes_stop_at_the_same_step(tmp_path):
    """The loss of an untrained network that does not learn: no validation improves on the first by so much."""
    options = (*STOPS, "callbacks.early_stopping.min_delta=10", "trainer=ddp_cpu")
    given = (*TINY, *options, f"output_dir={tmp_path}", "name=run")
    start(ROOT / "train.py", *{option.partition("=")[0]: option for option in given}.values())
    assert json.loads((tmp_path / "run" / "stopped_early.json").read_text())["step"] == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["callbacks.early_stopping.monitor=val/lost"], "is val/lost, which nothing logs; allowed: val/loss, val/mse"),
        (
            ["trainer.val_check_interval=null"],
            "is val/loss, which nothing logs; there is no validation: set trainer.val",
        ),
        (["callbacks.early_stopping.monitor=train/loss"], "allowed: a name that begins with val/ or eval/"),
        (["callbacks.early_stopping.patience=0"], "is 0; allowed: a whole number, at least 1"),
    ],
)
def test_a_mistake_is_found_before_data_is_read(tmp_path, monkeypatch, options, message):
    monkeypatch.setattr("langevin.data.module.DataModule.prepare_data", lambda self: pytest.fail("data was read"))
    run = train(tmp_path, *STOPS, *options, status=1)
    assert message in run.err
    assert "Traceback" not in run.err
