"""A model that was trained on transformed images, in every other command: as if it had not been."""

import json

import numpy as np
import pytest
import torch
from helpers.commands import call

from langevin.assembly.saved import load_model
from langevin.checkpoint import find_checkpoint
from langevin.conditions.class_label import ClassLabel

CPU = "accelerator=cpu"


@pytest.fixture(scope="module")
def run(train):
    """Of a network that diffusers can hold."""
    groups = ("model.norm_groups=8", "model.channel_multipliers=[1]", "trainer.max_steps=3")
    return train("augmented", *groups, "conditions=[class_label,augmentation]", "conditions.augmentation.probability=1")


def sampled(run, out, *overrides):
    options = ("num_samples=4", "sampler.steps=2", "labels=[1,2,3,4]", CPU)
    result = call("sample", f"checkpoint={run}", f"out={out}", *options, *overrides)
    assert result.status == 0, result.err
    with np.load(out / "samples.npz") as arrays:
        return arrays["arr_0"]


def test_it_becomes_a_network_of_diffusers_that_computes_the_same(run, tmp_path):
    exported = call("convert", f"export={run}", f"out={tmp_path / 'folder'}")
    assert exported.status == 0, exported.err
    imported = call("convert", f"import={tmp_path / 'folder'}", f"out={tmp_path / 'back'}")
    assert imported.status == 0, imported.err
    own, back = (load_model(find_checkpoint(each)).denoiser.network.eval() for each in (run, tmp_path / "back"))
    assert own.condition.parts[1].embed.weight.any(), "it has learnt from labels"
    assert isinstance(back.condition, ClassLabel)
    given = torch.randn(4, 1, 8, 8), torch.tensor([0.0, 1.0, 20.0, 999.0]), {"label": torch.tensor([1, 2, -1, 4])}
    with torch.no_grad():
        assert torch.equal(own(*given), back(*given))


def test_guidance_and_likelihood(run, tmp_path):
    guided = ("guidance=classifier_free", "guidance.scale=3")
    assert not np.array_equal(sampled(run, tmp_path / "guided", *guided), sampled(run, tmp_path / "plain"))
    quick = ("likelihoods=[continuous_vlb]", "likelihoods.continuous_vlb.num_times=2", "num_images=4", CPU)
    result = call("evaluate", f"checkpoint={run}", *quick, f"out={tmp_path}")
    assert result.status == 0, result.err
    assert json.loads((tmp_path / "likelihood.json").read_text())["images"]["number"] == 4
