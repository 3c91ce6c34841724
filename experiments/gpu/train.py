"""What does it learn? CIFAR-10 for as long as there is time, with distances of its samples, a grid and curves."""

import csv
import json
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.gpu.day import Day

CURVES, GRID = "curves.csv", "samples.png"


class Sizes(NamedTuple):
    """How large everything is.

    Attributes:
        classifier: options of `train.py` for the classifier whose features the distances are of.
        run: options of `train.py` for the model.
        metrics: options of `evaluate.py`.
        probe: steps that the run makes before it is known how many there is time for.
        steps: the most that it makes after them.
        shown: samples in the grid, ten in a row.
        closing: seconds that evaluation and grid take.
    """

    classifier: Sequence[str]
    run: Sequence[str]
    metrics: Sequence[str]
    probe: int
    steps: float
    shown: int
    closing: float


def sizes(day: Day) -> Sizes:
    """Those of a GPU, or of a rehearsal: digits, and networks that learn next to nothing."""
    if day.rehearsal:
        tiny = (
            "trainer=cpu",
            "batch_size=8",
            "trainer.log_every_n_steps=1",
            "callbacks.progress.every_n_steps=1",
            "trainer.val_check_interval=null",
        )
        network = ("channels=32", "channel_multipliers=[1]")
        return Sizes(
            ("experiment=digits_classifier", *tiny, *(f"classifier.{each}" for each in network), "trainer.max_steps=5"),
            ("experiment=digits", *tiny, *(f"model.{each}" for each in network), "sampler.steps=2", "metrics=[]"),
            ("data=digits", "metrics=[fid,inception_score]", "num_samples=100", "batch_size=50", "accelerator=cpu"),
            probe=5,
            steps=5,
            shown=20,
            closing=30,
        )
    data = () if day.cifar10 is None else (f"data.path={day.cifar10}",)
    gpu = ("trainer=gpu", *data)
    classifier = (
        "batch_size=256",
        "classifier.channels=64",
        "trainer.val_check_interval=null",
        "trainer.max_steps=1200",
    )
    return Sizes(
        ("experiment=cifar10_classifier", *gpu, *classifier),
        ("experiment=cifar10_minutes", *gpu, "callbacks=[progress,checkpoint]"),
        (
            "data=cifar10",
            *data,
            "metrics=[fid,inception_score,precision_recall]",
            "num_samples=10000",
            "batch_size=500",
        ),
        probe=150,
        steps=math.inf,
        shown=100,
        closing=110,
    )


def run(day: Day, limit: float) -> None:
    """Train, evaluate and draw in at most so many seconds."""
    until = day.left - limit
    size = sizes(day)
    found: dict[str, Any] = {}
    day.results["train"] = found
    classifier, model = day.work / "classifier", day.work / "model"

    def step(name: str, *command: str | Path, keep: float = 0) -> bool:
        """Run a command, leaving so many seconds; whether it did all that it was asked to."""
        found[name] = day.run([str(each) for each in command], day.left - until - keep)
        day.write()
        return found[name]["status"] == 0

    def train(name: str, folder: Path, *options: str, keep: float = 0) -> bool:
        return step(name, "train.py", *options, f"output_dir={folder.parent}", f"name={folder.name}", keep=keep)

    if not train("classifier", classifier, *size.classifier, keep=size.closing):
        return
    if not train("probe", model, *size.run, f"trainer.max_steps={size.probe}", keep=size.closing):
        return
    began = time.monotonic()
    # The half of the probe's time stands for the start-up of the run proper.
    steps = min(size.steps, steps_for(model, day.left - until - size.closing - found["probe"]["seconds"] / 2))
    done = train("run", model, *size.run, f"trainer.max_steps={size.probe + steps}", keep=size.closing / 2)
    found["images"] = batch_size(model) * (size.probe + steps if done else int(logged(model)[-1]["step"]))
    found["seconds_of_training"] = round(time.monotonic() - began + found["probe"]["seconds"], 1)
    curves(day, model)
    features = ("features=classifier", f"features.checkpoint={classifier}")
    if step("evaluation", "evaluate.py", f"checkpoint={model}", *size.metrics, *features, f"out={day.work / 'values'}"):
        found["metrics"] = json.loads((day.work / "values" / "metrics.json").read_text())
    image = day.work / "grid"
    device = "accelerator=cpu" if day.rehearsal else "accelerator=gpu"
    shown = (f"num_samples={size.shown}", f"batch_size={size.shown}", device, f"out={image}", "overwrite=true")
    if step("samples", "sample.py", f"checkpoint={model}", *shown):
        shutil.copyfile(image / "grid.png", day.out / GRID)
    day.write()


def steps_for(folder: Path, seconds: float) -> int:
    """How many optimizer steps a run makes in so many seconds, by the speed of its last steps; at least 1."""
    rows = logged(folder)
    rates = [float(row["train/images_per_second"]) for row in rows if row.get("train/images_per_second")]
    return max(1, int(seconds * rates[-1] / batch_size(folder)))


def batch_size(folder: Path) -> int:
    """A run's images per step."""
    from omegaconf import OmegaConf

    return int(OmegaConf.load(folder / "config.yaml")["batch_size"])


def logged(folder: Path) -> list[dict[str, str]]:
    """The rows of a run's metrics.csv."""
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def curves(day: Day, folder: Path) -> None:
    """Keep what the run has logged."""
    shutil.copyfile(folder / "metrics.csv", day.out / CURVES)
