"""What differs, and how it is called."""

import pytest

from langevin.config.naming import differing, named, short_names, telling, typed_name
from langevin.config.validate import CONF


def test_what_differs():
    """A field says nothing where its component's kind differs; it does where the kind is the same."""
    kinds = [("a.Adam", 0.9), ("a.Adam", 0.9), ("a.Lion", 0.5)]
    configs = [{"optimizer._target_": kind, "optimizer.beta": beta, "seed": 0} for kind, beta in kinds]
    assert list(differing(configs)) == [{"optimizer._target_": kind} for kind, _ in kinds]
    configs[1]["optimizer.beta"] = 0.8
    assert list(differing(configs)) == [
        {"optimizer._target_": "a.Adam", "optimizer.beta": 0.9},
        {"optimizer._target_": "a.Adam", "optimizer.beta": 0.8},
        {"optimizer._target_": "a.Lion", "optimizer.beta": 0.5},
    ]


def test_what_tells_records_apart():
    ddim = {"sampler._target_": "DDIM", "sampler.steps": 10, "sampler.eta": 0.0, "guidance": None, "seed": 0}
    more = {**ddim, "sampler.steps": 20}
    heun = {"sampler._target_": "Heun", "sampler.steps": 20, "sampler.churn": 0.0, "guidance": None, "seed": 0}
    guided = {name: value for name, value in ddim.items() if name != "guidance"}
    guided |= {"guidance._target_": "Free", "guidance.scale": 2.0}
    assert telling([ddim, ddim]) == []
    assert telling([ddim, more]) == ["sampler.steps"]
    assert telling([ddim, more, heun]) == ["sampler._target_", "sampler.steps"], "eta is that of DDIM alone, and one"
    assert telling([heun, ddim, {**ddim, "sampler.eta": 1.0}]) == ["sampler._target_", "sampler.steps", "sampler.eta"]
    assert telling([ddim, guided]) == ["guidance._target_"]
    assert telling([ddim, guided, {**guided, "guidance.scale": 4.0}]) == ["guidance._target_", "guidance.scale"]
    assert telling([ddim, {**ddim, "target.sha256": "a"}]) == ["target.sha256"]


def test_names_are_as_short_as_distinguishes_them():
    paths = {"optimizer.lr", "schedule._target_", "data.image_size", "model.first.size", "model.second.size"}
    assert short_names(paths) == {
        "optimizer.lr": "lr",
        "schedule._target_": "schedule",
        "data.image_size": "image_size",
        "model.first.size": "first.size",
        "model.second.size": "second.size",
    }


def test_names_are_as_one_types_them():
    paths = ("samples.sampler._target_", "samples.sampler.steps", "num_samples", "reference.sha256")
    assert [typed_name(path) for path in paths] == ["sampler", "sampler.steps", "num_samples", "reference"]


@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        ("schedule._target_", "langevin.diffusion.schedules.cosine.Cosine", "cosine"),
        ("samples.sampler._target_", "langevin.samplers.dpm_solver_multistep.DPMSolver2M", "dpm_solver_2m"),
        ("task._target_", "langevin.assembly.tasks.ClassificationTask", "classifier"),
        ("model._target_", "langevin.networks.unet.UNet", "unet"),  # of several options the one named like it
        ("model._target_", "langevin.networks.dit.DiT", "DiT"),  # of which there is none
        ("schedule._target_", "mine.Sine", "Sine"),
        ("model.channels", [1, 2], "[1,2]"),
    ],
)
def test_a_class_is_the_option_that_chooses_it(path, value, shown):
    assert named(path, value) == shown
    if path.endswith("_target_") and shown.islower():
        assert (CONF / path.split(".")[-2] / f"{shown}.yaml").is_file()
