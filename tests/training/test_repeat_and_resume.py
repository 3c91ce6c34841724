"""Two runs that ought to be the same run are so to the last bit."""

import shutil

import pytest
import torch
from training_helpers import BUSY, QUIET, VALIDATED, differing, read_csv, train, trained

from langevin.checkpoint import read_checkpoint
from langevin.files import write_atomically
from langevin.training.callbacks.checkpoint import Checkpoint
from langevin.training.module import DiffusionModule

ACCUMULATE = {1: "trainer.accumulate_grad_batches=1", 2: "trainer.accumulate_grad_batches=2"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Six steps at once, with nothing going on beside training; by micro-batches a step."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return {count: train(folder, *QUIET, option, name=f"run{count}") for count, option in ACCUMULATE.items()}


def test_the_same_seed_gives_the_same_bits(tmp_path, undisturbed):
    again = train(tmp_path, *QUIET)
    assert differing(trained(again), trained(undisturbed[1])) == []
    assert again.rows == undisturbed[1].rows


def test_another_seed_gives_other_weights(tmp_path, undisturbed):
    other = train(tmp_path, *QUIET, "seed=1")
    changed = differing(trained(other), trained(undisturbed[1]))
    assert "model.network.first.weight" in changed
    assert "ema.network.first.weight" in changed


def test_all_that_the_run_holds_has_moved(tmp_path, undisturbed):
    """The comparisons of this file are between things that training changes, at every step."""
    later, earlier = trained(undisturbed[1]), trained(train(tmp_path, *QUIET, "trainer.max_steps=5"))
    constant = set(later) - set(differing(later, earlier))
    assert not any("network" in name for name in constant)
    average = {name.removeprefix("ema."): value for name, value in later.items() if name.startswith("ema.")}
    weights = {
        name.removeprefix("model."): value
        for name, value in later.items()
        if name in {f"model.{key}" for key in average}
    }
    assert len(differing(average, weights)) == len(average) == len(weights) > 0


@pytest.mark.parametrize(
    ("extra", "count"),
    [
        pytest.param((), 1, marks=pytest.mark.slow),
        ((), 2),
        (VALIDATED, 1),
        pytest.param(VALIDATED, 2, marks=pytest.mark.slow),
    ],
    ids=["plain-1", "plain-2", "validated-1", "validated-2"],
)
def test_a_resumed_run_is_the_undisturbed_run(tmp_path, undisturbed, extra, count):
    train(tmp_path, *QUIET, *extra, ACCUMULATE[count], "trainer.max_steps=3")
    resumed = train(tmp_path, *QUIET, *extra, ACCUMULATE[count])
    assert "from step 3 to 6" in resumed.out
    assert differing(trained(resumed), trained(undisturbed[count])) == []
    shown = [{name: value for name, value in row.items() if not name.startswith("val/")} for row in resumed.rows]
    assert [row for row in shown if row["train/loss"]] == undisturbed[count].rows


@pytest.mark.parametrize(
    "option", ["model.dropout=0", pytest.param("conditions.class_label.dropout=0", marks=pytest.mark.slow)]
)
def test_dropout_and_dropped_labels_play_a_part(tmp_path, undisturbed, option):
    """Otherwise the comparisons above would not show whether they are drawn anew."""
    assert differing(trained(train(tmp_path, *QUIET, option)), trained(undisturbed[1]))


@pytest.mark.parametrize("count", ACCUMULATE)
def test_looking_on_changes_nothing(tmp_path, undisturbed, count):
    busy = train(tmp_path, *BUSY, ACCUMULATE[count])
    assert len(list((busy.directory / "samples").iterdir())) == 6
    assert [row["step"] for row in busy.rows if row["eval/class_accuracy"]] == ["2", "4", "6"]
    assert [row["step"] for row in busy.rows if row["val/loss"]] == ["2", "4", "6"]
    assert differing(trained(busy), trained(undisturbed[count])) == []


@pytest.fixture(scope="module", params=ACCUMULATE)
def snapshots(request, tmp_path_factory):
    """A busy run, and what lay on the disk after each time that it was saved: what a kill might leave behind."""
    folder = tmp_path_factory.mktemp("snapshots")
    save, consider, taken = Checkpoint._save, Checkpoint.consider, []

    def save_and_copy(self, trainer, names):
        save(self, trainer, names)
        snapshot = folder / f"from_{trainer.global_step}" / "checkpoints"
        snapshot.mkdir(parents=True)
        shutil.copyfile(self.directory / "last.ckpt", snapshot / "last.ckpt")
        shutil.copyfile(self.directory.parent / "metrics.csv", snapshot.parent / "metrics.csv")
        taken.append((trainer.global_step, *names))

    def always_best(self, trainer, value):
        self.best = None
        consider(self, trainer, value)

    options = (
        *BUSY,
        ACCUMULATE[request.param],
        "trainer.log_every_n_steps=2",
        "trainer.max_steps=7",
        "callbacks.checkpoint.keep_every_n_steps=3",
        "evaluation.every_n_steps=3",
        "callbacks.checkpoint.monitor=val/loss",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "_save", save_and_copy)
        patch.setattr(Checkpoint, "consider", always_best)
        whole = train(folder, *options)
    assert taken == [
        (2, "best.ckpt", "last.ckpt"),
        (3, "step_00000003.ckpt", "last.ckpt"),
        (4, "best.ckpt", "last.ckpt"),
        (6, "step_00000006.ckpt", "best.ckpt", "last.ckpt"),
        (7, "last.ckpt"),
    ]
    return folder, options, whole


@pytest.mark.parametrize("step", [*(pytest.param(step, marks=pytest.mark.slow) for step in (2, 3)), 6])
def test_nothing_is_lost_wherever_a_run_was_saved(snapshots, step):
    """After a validation; after an evaluation; after both. The log has every number, too."""
    folder, options, whole = snapshots
    resumed = train(folder, *options, name=f"from_{step}")
    assert f"from step {step} to 7" in resumed.out
    assert differing(trained(resumed), trained(whole)) == []
    assert [row["step"] for row in whole.rows] == ["2", "3", "4", "6", "7"]
    assert [row["step"] for row in whole.rows if row["train/loss"] and row["val/loss"]] == ["2", "4", "6"]
    assert [row["step"] for row in whole.rows if row["eval/class_accuracy"]] == ["3", "6", "7"]
    assert resumed.rows == whole.rows


def test_a_run_is_done_only_when_it_is_evaluated(snapshots):
    """At the last save, after which the same command would find nothing to do, the last evaluation is in the log."""
    folder, _, whole = snapshots
    assert read_csv(folder / "from_7" / "metrics.csv") == read_csv(whole.directory / "metrics.csv")


@pytest.mark.slow
def test_a_run_of_other_random_numbers_is_resumed_with_a_notice(tmp_path):
    """Once: what it saves from then on is of the present ones. One that is done draws no more."""
    notice = "run: random numbers of training are drawn otherwise since it was saved (now version 2, then 1)"
    run = train(tmp_path, *QUIET, "trainer.max_steps=1")
    checkpoint = read_checkpoint(run.last)
    del checkpoint["draws"]  # which the first version did not save
    write_atomically(run.last, lambda file: torch.save(checkpoint, file))
    printed = [train(tmp_path, *QUIET, f"trainer.max_steps={steps}").out for steps in (1, 2, 3)]
    assert [out.count(notice) for out in printed] == [0, 1, 0]


def test_a_finished_run_is_extended(tmp_path):
    """The rows of the log, too, come at the steps they would have come at."""
    options = (*QUIET, *VALIDATED, ACCUMULATE[2], "trainer.log_every_n_steps=2")
    whole = train(tmp_path, *options, name="whole")
    train(tmp_path, *options, "trainer.max_steps=2")
    train(tmp_path, *options, "trainer.max_steps=4")
    extended = train(tmp_path, *options)
    assert differing(trained(extended), trained(whole)) == []
    assert [row["step"] for row in whole.rows] == ["2", "4", "6"]
    assert extended.rows == whole.rows


@pytest.mark.parametrize(("before", "after"), [pytest.param(1, 2, marks=pytest.mark.slow), (4, 2)])
def test_micro_batches_may_change_in_the_course_of_a_run(tmp_path, monkeypatch, before, after):
    """They decide what fits into memory, not what is trained: every step has the images that it would have had."""
    seen = {}
    training_step = DiffusionModule.training_step

    def look(self, batch, batch_idx):
        seen.setdefault(self.global_step, []).append(batch["x"])
        return training_step(self, batch, batch_idx)

    monkeypatch.setattr(DiffusionModule, "training_step", look)
    train(tmp_path, *QUIET, name="whole")
    whole = {step: torch.cat(images) for step, images in seen.items()}
    seen.clear()
    train(tmp_path, *QUIET, *VALIDATED, f"trainer.accumulate_grad_batches={before}", "trainer.max_steps=3")
    run = train(tmp_path, *QUIET, *VALIDATED, f"trainer.accumulate_grad_batches={after}")
    assert [len(images) for images in seen.values()] == [before] * 3 + [after] * 3
    for step, images in whole.items():
        assert torch.equal(torch.cat(seen[step]), images)
    assert [row["step"] for row in run.rows if row["val/loss"]] == ["2", "4", "6"]
