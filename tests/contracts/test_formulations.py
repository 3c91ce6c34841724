"""Every formulation goes with the digits: no mistakes, and two steps of training with its own sampler's images."""

import csv

import pytest
from helpers.commands import call, composed

from contracts.options import load
from langevin.assembly.check import mistakes_in
from langevin.assembly.run import dry_build
from langevin.config.signature import signature
from langevin.config.types import TARGET
from langevin.config.validate import CONF, options

DIGITS = "experiment=digits"
NARROW = ("model.channels=32", "model.channel_multipliers=[1]")
SMALL = (
    *NARROW,
    "batch_size=8",
    "sampler.steps=2",
    "trainer.accelerator=cpu",
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
    "trainer.limit_val_batches=1",
    "trainer.log_every_n_steps=1",
    "callbacks.samples.every_n_steps=2",
    "callbacks.samples.num_samples=4",
    "metrics=[]",
)


@pytest.mark.parametrize("name", options("formulation"))
def test_is_what_it_chooses_and_makes_sense(name):
    """The experiment comes later, and must not choose otherwise."""
    cfg, choices = composed("train", DIGITS, f"formulation={name}", *NARROW)
    for entry in load(CONF / "formulation" / f"{name}.yaml")["defaults"]:
        ((group, option),) = entry.items()
        assert choices[group.removeprefix("override /")] == option
    mistakes = mistakes_in(cfg)
    assert mistakes + dry_build(cfg) == []


@pytest.mark.parametrize("name", options("formulation"))
def test_a_classifier_goes_with_it(name):
    """And keeps its noise process, and how that is presented to a network."""
    cfg, choices = composed("train", f"formulation={name}", "task=classifier", "classifier.channel_multipliers=[1]")
    whole, usual = composed("train", f"formulation={name}")
    for group in ("schedule", "parameterization", "time_sampler"):
        assert choices[group] == usual[group]
        assert cfg[group] == whole[group]
    mistakes = mistakes_in(cfg)
    assert mistakes + dry_build(cfg) == []


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "edm" else pytest.mark.slow) for name in options("formulation")]
)
def test_the_scale_of_its_loss_can_be_learned(name):
    """Where its variance is not."""
    cfg, _ = composed("train", f"formulation={name}", "objective=uncertainty", "variance=fixed_large")
    mistakes = mistakes_in(cfg)
    assert mistakes + dry_build(cfg) == []


@pytest.mark.parametrize("name", options("formulation"))
def test_trains_and_makes_images(name, tmp_path):
    result = call("train", DIGITS, f"formulation={name}", *SMALL, f"output_dir={tmp_path}", "name=run")
    assert result.status == 0, result.err
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2"]
    for row in rows:
        assert 0 < float(row["train/loss"]) < float("inf")
        assert 0 < float(row["train/grad_norm"]) < float("inf")
    assert 0 < float(rows[-1]["val/loss"]) < float("inf")
    assert len(list((tmp_path / "run" / "samples").iterdir())) == 1


def test_every_objective_of_a_formulation_is_fed_by_its_weighting():
    """A bundle says which weighting it means, unless its objective weighs by itself."""
    for name in options("formulation"):
        chosen = {
            group.removeprefix("override /"): option
            for entry in load(CONF / "formulation" / f"{name}.yaml")["defaults"]
            for group, option in entry.items()
        }
        cfg, _ = composed("train", f"formulation={name}")
        assert ("weighting" in signature(cfg.objective[TARGET])) == ("weighting" in chosen), name
