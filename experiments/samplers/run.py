"""Quality against evaluations of the network, for every sampler: `python experiments/samplers/run.py outputs/NAME`."""

import csv
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor
from tqdm import tqdm

from langevin.build.components import SAMPLING, check_model, make_generator, override
from langevin.build.run import Model, load_model, make_data
from langevin.config.validate import CONF, options
from langevin.metrics.class_accuracy import ClassAccuracy
from langevin.metrics.evaluation import Evaluation
from langevin.metrics.fid import frechet_distance
from langevin.metrics.inception import Inception
from langevin.training.checkpoint import find_checkpoint

STEPS = (5, 10, 20, 40)
CHOICES = ("grid=karras", "thresholding=none", "guidance=none")
NUMBER, BATCH, SEED = 500, 250, 0
HERE = Path(__file__).parent


def main(run: Path) -> None:
    """Sample with every sampler and every number of steps; write results.csv and results.png."""
    model = load_model(find_checkpoint(run))
    data = make_data(model.cfg)
    data.prepare_data()
    reference = torch.tensor(data.train_set.images)
    evaluation = Evaluation(Inception(), {"class_accuracy": ClassAccuracy()})  # which asks for no features
    evaluation.prepare(NUMBER, data.train_set.images, data.train_set.labels, conditional=True)
    rows = []
    for sampler in tqdm(options("sampler")):
        for steps in STEPS:
            images, evaluations = sample(model, evaluation, f"sampler={sampler}", f"sampler.steps={steps}")
            row: dict[str, str | int | float] = {"sampler": sampler, "steps": steps, "evaluations": evaluations}
            row |= {name: round(value, 4) for name, value in evaluation.compute().items()}
            rows.append(row | {"frechet_distance_of_pixels": round(distance(images, reference), 4)})
    with (HERE / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    halves = distance(reference[::2], reference[1::2])
    print(f"between the halves of the data: {halves:.4f}")
    draw(rows, halves)


def sample(model: Model, evaluation: Evaluation, *choices: str) -> tuple[Tensor, int]:
    """Pictures uint8 (N, H, W, C), which are given to the evaluation too, and the evaluations that each took."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = override(model.cfg, compose("sample", [*CHOICES, *choices]), SAMPLING)
    check_model(cfg, SAMPLING)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    evaluation.reset()
    images = []
    for batch in make_generator(cfg, model.facts)(model.denoiser, range(NUMBER), SEED, BATCH, "cpu", count):
        evaluation.add(batch.images, batch.labels, batch.indices)
        images.append(batch.images.permute(0, 2, 3, 1))
    return torch.cat(images), calls // len(images)


def distance(a: Tensor, b: Tensor) -> float:
    """The Frechet distance of the pixels, in [-1, 1], of pictures uint8 (N, H, W, C)."""
    rows = [images.flatten(1).double() / 127.5 for images in (a, b)]
    return float(frechet_distance(*(moment for row in rows for moment in (row.mean(0), row.T.cov()))))


def draw(rows: list[dict[str, str | int | float]], halves: float) -> None:
    """One line a sampler: the distance and the share named right, against evaluations."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    styles = [(color, style) for style in ("-", "--") for color in plt.colormaps["tab10"].colors[:7]]
    for sampler, (color, style) in zip(options("sampler"), styles, strict=False):
        own = [row for row in rows if row["sampler"] == sampler]
        for axis, value in zip(axes, ("frechet_distance_of_pixels", "class_accuracy"), strict=True):
            x, y = ([row[name] for row in own] for name in ("evaluations", value))
            axis.plot(x, y, style, color=color, marker="o", markersize=3, label=sampler)
    axes[0].axhline(halves, color="black", linewidth=0.8, linestyle=":", label="data against data")
    for axis, title in zip(axes, ("Frechet distance of the pixels", "share of the digits named right"), strict=True):
        axis.set(xscale="log", xlabel="evaluations of the network", title=title)
        axis.grid(alpha=0.3)
        axis.set_xticks([5, 10, 20, 40, 80], labels=["5", "10", "20", "40", "80"])
        axis.xaxis.minorticks_off()
    axes[0].set(yscale="log")
    axes[0].set_yticks([0.4, 0.6, 1, 2, 4, 6], labels=["0.4", "0.6", "1", "2", "4", "6"])
    axes[0].yaxis.minorticks_off()
    axes[0].legend(fontsize=8, ncols=2)
    figure.savefig(HERE / "results.png", dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
