"""The recipe in latents, shortened: an autoencoder, killed halfway and resumed, and a model in its latents."""

import csv
import json

import pytest
from helpers.commands import call


@pytest.mark.slow
def test_digits_are_learnt_in_latents(tmp_path):
    """A third of the recipe's training: weaker bounds; `make recipes` trains it in full."""
    folder = f"output_dir={tmp_path}"
    short = ("experiment=digits_autoencoder", "lr_schedule.total_steps=700", "evaluation.every_n_steps=700")
    for steps in (300, 700):  # the second resumes
        trained = call("train", *short, f"trainer.max_steps={steps}", folder, "name=ae", "trainer.accelerator=cpu")
        assert trained.status == 0, trained.err
    run = tmp_path / "ae"
    assert (run / "samples" / "samples_00000700.png").is_file()
    measured = call(
        "evaluate", f"checkpoint={run}", "metrics=[psnr]", "num_samples=297", f"out={tmp_path}", "accelerator=cpu"
    )
    assert measured.status == 0, measured.err
    values = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    assert values["psnr"] > 26, values  # two components of each 2x2 pixels: 17.6

    short = ("experiment=digits_latent", f"codec.run={run}", "trainer.max_steps=400", "evaluation.every_n_steps=400")
    trained = call("train", *short, folder, "name=ldm", "trainer.accelerator=cpu")
    assert trained.status == 0, trained.err
    with (tmp_path / "ldm" / "metrics.csv").open(newline="") as file:
        last = [row for row in csv.DictReader(file) if row["eval/class_accuracy"]][-1]
    assert float(last["eval/class_accuracy"]) > 0.9, last
