"""The quickstart's recipe goes to diffusers as it is, samples the same there, and comes back."""

import diffusers
import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from helpers.commands import call

from langevin.assembly.saved import load_model
from langevin.checkpoint import find_checkpoint
from langevin.diffusion.draws import SampleDraws

pytestmark = pytest.mark.e2e

NUMBER, SHAPE = 8, (1, 8, 8)
OWN_TIMES = "timesteps="
"""What of a note the scheduler is called with."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    quick = (
        "trainer.max_steps=6",
        "evaluation.every_n_steps=6",
        "evaluation.num_samples=2",
        "trainer.val_check_interval=6",
    )
    result = call(
        "train",
        *("experiment=digits", *quick, "metrics=[]", "callbacks=[checkpoint]", "ema.max_decay=0.5"),
        *(f"output_dir={folder}", "name=quickstart"),
    )
    assert result.status == 0, result.err
    return folder / "quickstart"


def convert(*overrides):
    result = call("convert", *overrides)
    assert result.status == 0, result.err
    return result.out


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("timestep_spacing=trailing",),
        ("sampler=ddim", "timestep_spacing=trailing", "sampler.steps=10"),
    ],
)
def test_sampled_in_diffusers(run, overrides, tmp_path):
    """Equal to one grey level."""
    output = convert(f"export={run}", f"out={tmp_path / 'out'}", *overrides)
    network = UNet2DModel.from_pretrained(tmp_path / "out", subfolder="unet", low_cpu_mem_usage=False).eval()
    ddim = "sampler=ddim" in overrides
    kind = diffusers.DDIMScheduler if ddim else diffusers.DPMSolverMultistepScheduler
    scheduler = kind.from_pretrained(tmp_path / "out", subfolder="scheduler")
    if OWN_TIMES in output:
        times = output.partition(OWN_TIMES)[2].partition(")")[0]
        scheduler.set_timesteps(timesteps=[int(time) for time in times.strip("[]").split(",")])
    else:
        scheduler.set_timesteps(10 if ddim else 20)
    assert (OWN_TIMES in output) == (overrides == ())
    x, labels = SampleDraws(0, range(NUMBER), SHAPE).normal(), torch.arange(NUMBER) % 10
    clipped = {"use_clipped_model_output": True} if ddim else {}
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, t, labels).sample, t, x, **clipped).prev_sample
    theirs = ((x.clamp(-1, 1) + 1) * 127.5).round().numpy()[:, 0]
    sampled = call("sample", f"checkpoint={run}", f"num_samples={NUMBER}", f"out={tmp_path / 'made'}", *overrides)
    assert sampled.status == 0, sampled.err
    ours = np.load(tmp_path / "made" / "samples.npz")["arr_0"][..., 0].astype(float)
    assert ours.std() > 30
    assert np.abs(ours - theirs).max() <= 1


def test_it_comes_back(run, tmp_path):
    convert(f"export={run}", f"out={tmp_path / 'out'}")
    convert(f"import={tmp_path / 'out'}", f"out={tmp_path / 'back'}")
    before, after = load_model(find_checkpoint(run)), load_model(find_checkpoint(tmp_path / "back"))
    weights, again = (model.denoiser.network.state_dict() for model in (before, after))
    assert weights.keys() == again.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in weights.items())
    for group in ("schedule", "parameterization", "variance", "sampler"):
        assert after.cfg[group]["_target_"] == before.cfg[group]["_target_"]
    assert after.cfg["sampler"]["steps"] == 20
