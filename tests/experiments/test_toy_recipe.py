"""The recipe of the toy densities, shortened: by class, killed halfway, resumed, sampled, measured."""

import json

import numpy as np
import pytest
import torch
from helpers.commands import call

from langevin.data.toy import RADIUS, eight_gaussians
from langevin.metrics.energy_distance import energy_distance

NUMBER = 4000
SHORT = ("experiment=toy", "conditions=[class_label]", "trainer.accelerator=cpu", "evaluation.num_samples=2000")


@pytest.mark.slow
def test_a_density_is_learnt_and_drawn(tmp_path):
    options = (*SHORT, "lr_schedule.total_steps=1500", f"output_dir={tmp_path}", "name=run")
    for steps in (700, 1500):  # the second resumes
        trained = call("train", *options, f"trainer.max_steps={steps}")
        assert trained.status == 0, trained.err
    run = tmp_path / "run"
    assert (run / "samples" / "samples_00001500.png").is_file()
    made = call("sample", f"checkpoint={run}", f"num_samples={NUMBER}", "batch_size=2000", "accelerator=cpu")
    assert made.status == 0, made.err
    with np.load(run / "generated" / "samples.npz") as arrays:
        samples, labels = arrays["arr_0"], arrays["arr_1"]
    assert (samples.shape, samples.dtype) == ((NUMBER, 2), np.float32)

    truth = torch.from_numpy(eight_gaussians(NUMBER, 1, 5)[0]).double()
    assert float(energy_distance(torch.from_numpy(samples).double(), truth)) < 3e-3  # of one Gaussian: 0.02
    angle = labels * np.pi / 4
    centres = RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    nearest = np.linalg.norm(samples - centres, axis=1) < RADIUS * np.sin(np.pi / 8)
    assert nearest.mean() > 0.95

    place = f"samples={run / 'generated'}"
    measured = call("evaluate", place, "data=toy", "metrics=[energy_distance]", "accelerator=cpu")
    assert measured.status == 0, measured.err
    values = json.loads((run / "generated" / "metrics.json").read_text())["metrics"]
    assert abs(values[f"energy_distance@{NUMBER}"]) < 3e-3
