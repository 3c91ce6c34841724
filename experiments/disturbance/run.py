"""Every metric against the level of every disturbance: see the README for its arguments."""

import argparse
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import partial
from itertools import groupby
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from experiments.disturbance import disturbances as kinds
from experiments.disturbance.disturbances import Disturbance, Images
from experiments.sampled import Row, write_rows
from hydra import compose, initialize_config_dir
from matplotlib.figure import SubFigure
from numpy.typing import NDArray
from omegaconf import DictConfig
from scipy.stats import spearmanr
from tqdm import tqdm

from langevin.assembly.run import make_evaluation, open_data
from langevin.cli import fail
from langevin.config.validate import CONF
from langevin.errors import UserError
from langevin.evaluation.result import EvaluationResult
from langevin.files import write_json
from langevin.images import image_grid
from langevin.metrics.reference import Reference
from langevin.processes import launch
from langevin.samplers.pipeline import SampleBatch

LEVELS = 5  # above 0, evenly up to the greatest
SHOWN = 3  # images of each level
SEED = 0
HERE = Path(__file__).parent


def main(contaminant: str, number: int, reference: int, choices: Sequence[str]) -> None:
    """Disturb `number` test images and measure them against `reference` training images; write what was found."""
    cfg = composed(choices)
    data = open_data(cfg)
    cars = open_data(composed(["data=stanford_cars", f"data.path={contaminant}", f"data.image_size={data.image_size}"]))
    if data.test_set is None:
        raise UserError("data: has no test images to disturb; give data.test_path")
    real, chosen = spread(len(data.train_set), reference), spread(len(data.test_set), number)
    images = data.test_set.samples[chosen]
    cond = {"label": torch.from_numpy(data.test_set.labels[chosen])}

    evaluation = make_evaluation(cfg)
    evaluation.prepare(number, Reference(data.train_set.samples[real], data.train_set.labels[real]), cond)
    evaluation.to(launch(cfg.accelerator, cfg.devices).device).gather()

    def measure(made_images: Images) -> EvaluationResult:
        return evaluation.measure(batches(made_images, cond, cfg.batch_size), {"images": "test", "seed": SEED})

    undisturbed = measure(images)
    rows: list[Row] = []
    examples: dict[str, Images] = {}
    for name, (disturb, greatest) in disturbances(cars.train_set.samples).items():
        shown = []
        for level in tqdm(np.linspace(0, greatest, LEVELS + 1), name):
            disturbed = disturb(images, level, np.random.default_rng(SEED))
            values = without_spreads((measure(disturbed) if level else undisturbed).values)
            rows.append({"disturbance": name, "level": round(level, 4)} | values)
            shown.append(disturbed[spread(number, SHOWN)])
        examples[name] = np.stack(shown, axis=1)
    write_rows(HERE / "results.csv", rows)
    write_json(HERE / "protocol.json", undisturbed.protocol)
    distances = {
        value
        for name, metric in evaluation.metrics.items()
        if not metric.higher_is_better
        for value in undisturbed.protocol["metrics"][name]["values"]
    }
    correlations = correlate(rows, evaluation.features.name)
    write_rows(HERE / "correlations.csv", correlations)
    print(markdown(correlations))
    draw(rows, examples, distances, evaluation.features.name)


def disturbances(others: Images) -> dict[str, tuple[Disturbance, float]]:
    """Each with the greatest level of the paper; `others` are what the images are contaminated with."""
    return {
        "Gaussian noise": (kinds.gaussian_noise, 0.75),
        "Gaussian blur": (kinds.gaussian_blur, 4.0),
        "black rectangles": (kinds.black_rectangles, 0.75),
        "swirl": (kinds.swirl, 4.0),
        "salt and pepper": (kinds.salt_and_pepper, 0.3),
        "contamination": (partial(kinds.contamination, others=others), 0.75),
    }


def composed(choices: Sequence[str]) -> DictConfig:
    """The config of evaluate.py with these choices."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("evaluate", list(choices))


def spread(total: int, number: int) -> NDArray[np.int64]:
    """So many of `total` places, evenly spaced: where images lie by class, of every class as many.

    Raises:
        UserError: when there are fewer.
    """
    if number > total:
        raise UserError(f"{number} images are asked for, but there are only {total}")
    return np.arange(number) * total // number


def batches(images: Images, cond: Mapping[str, torch.Tensor], size: int) -> Iterator[SampleBatch]:
    """Images uint8 (N, H, W, C) as an evaluation takes them."""
    for index in torch.arange(len(images)).split(size):
        of_batch = {name: column[index] for name, column in cond.items()}
        yield SampleBatch(index, torch.from_numpy(images[index.numpy()]).permute(0, 3, 1, 2), of_batch)


def without_spreads(values: Mapping[str, float]) -> dict[str, float]:
    """The values, without their spreads over subsets."""
    return {name: float(f"{value:.6g}") for name, value in values.items() if "_std" not in name}


def correlate(rows: Sequence[Row], extractor: str) -> list[Row]:
    """Spearman's rank correlation of each value with the level: a row a value, a column a disturbance."""
    table: dict[str, Row] = {name: {"value": short(name, extractor)} for name in list(rows[0])[2:]}
    for disturbance, own in by_disturbance(rows).items():
        for name, row in table.items():
            statistic = spearmanr([each["level"] for each in own], [each[name] for each in own]).statistic
            row[disturbance] = round(float(statistic), 3)
    return list(table.values())


def markdown(rows: Sequence[Row]) -> str:
    """A table for the README."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def short(name: str, extractor: str) -> str:
    """The name of a value without its extractor and number of samples, which are the same for all."""
    return name.partition("@")[0].removesuffix(f"_{extractor}")


def by_disturbance(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each."""
    return {str(name): list(own) for name, own in groupby(rows, lambda row: row["disturbance"])}


def draw(rows: Sequence[Row], examples: Mapping[str, Images], distances: Set[str], extractor: str) -> None:
    """A block for each disturbance: images of each level, and below them the metrics."""
    figure = plt.figure(figsize=(15, 13), layout="constrained")
    blocks = figure.subfigures(2, 3, hspace=0.03, wspace=0.03).flat
    for block, (name, own) in zip(blocks, by_disturbance(rows).items(), strict=True):
        draw_block(block, name, own, examples[name], distances, extractor)
    figure.savefig(HERE / "results.png", dpi=80)


def draw_block(
    block: SubFigure, name: str, rows: list[Row], examples: Images, distances: Set[str], extractor: str
) -> None:
    """One disturbance; `examples` are (images, levels, H, W, C)."""
    levels = [float(row["level"]) for row in rows]
    step = levels[1]
    made_images, rising, falling = block.subplots(3, 1, sharex=True, height_ratios=(SHOWN / (LEVELS + 1) * 2, 1, 1))
    grid = image_grid(torch.from_numpy(examples).flatten(0, 1).permute(0, 3, 1, 2), len(levels))
    made_images.imshow(grid, extent=(-step / 2, levels[-1] + step / 2, 0, 1), aspect="auto", interpolation="nearest")
    made_images.set_axis_off()
    made_images.set_title(name, fontsize=14)
    for value in list(rows[0])[2:]:
        measured = np.array([float(row[value]) for row in rows])
        is_distance = value in distances
        most = measured.max()
        label = f"{short(value, extractor)}, at most {most:.3g}" if is_distance else short(value, extractor)
        axis = rising if is_distance else falling
        axis.plot(levels, measured / (most if is_distance else measured[0]), marker="o", markersize=3, label=label)
    rising.set_ylabel("distance / its greatest")
    falling.set_ylabel("value / undisturbed")
    falling.set_ylim(bottom=0)
    falling.set_xlabel("level")
    for axis in (rising, falling):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
        axis.set_xticks(levels)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contaminant", required=True, help="Stanford Cars: its official folder, or a tar of it")
    parser.add_argument("--number", type=int, default=5000, help="test images")
    parser.add_argument("--reference", type=int, default=10000, help="training images to compare them with")
    parser.add_argument("choices", nargs="+", help="those of evaluate.py: data, features, metrics")
    try:
        main(**vars(parser.parse_intermixed_args()))
    except UserError as error:
        fail(str(error))
