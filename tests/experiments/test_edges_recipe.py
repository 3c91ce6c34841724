"""The recipe of hints, shortened, with the edges of held-out digits."""

import numpy as np
import pytest
import torch
from helpers.commands import call
from helpers.digits import digits

from langevin.conditions.hint import Hint
from langevin.images import from_uint8

STEPS = 200


@pytest.mark.slow
def test_digits_have_the_edges_that_they_are_given(tmp_path):
    """Weaker bounds than of the whole recipe, see docs/guides/control.md."""
    short = ("experiment=digits_edges", f"trainer.max_steps={STEPS}", f"lr_schedule.total_steps={STEPS}")
    trained = call("train", *short, f"output_dir={tmp_path}", "name=run", "trainer.accelerator=cpu")
    assert trained.status == 0, trained.err

    held = digits()[0][1500:]
    np.savez(tmp_path / "held.npz", arr_0=held)
    given = (f"checkpoint={tmp_path / 'run'}", f"hint.images={tmp_path / 'held.npz'}", f"out={tmp_path / 'made'}")
    options = ("num_samples=297", "batch_size=297", "sampler.steps=25", "accelerator=cpu")
    made = call("sample", *given, *options)
    assert made.status == 0, made.err
    with np.load(tmp_path / "made" / "samples.npz") as arrays:
        samples = arrays["arr_0"]

    condition = Hint(kind="edges", threshold=None, dropout=0.0, image_size=8)
    found, wanted = (condition.hint(from_uint8(torch.from_numpy(each).movedim(-1, 1))) for each in (samples, held))

    def gap(edges):
        return float((edges - wanted).square().mean().sqrt())

    assert gap(found) < 0.14
    assert gap(found) < 0.4 * gap(found.roll(1, 0)), "those of others"
