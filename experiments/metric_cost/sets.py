"""What do the metrics of whole sets cost, beside sampling and the extractor, and how does it grow with the number?

Usage: ``python -m experiments.metric_cost.sets DIMENSIONS NUMBER [NUMBER ...] [--metrics NAME ...] [--power P]``, each
number above 5,014
"""

import argparse
import math
import resource
import time

import numpy as np
import torch
from experiments.metric_cost.benchmark import Features
from torch import Tensor

from langevin.cli import keep_memory
from langevin.metrics.base import Plan, SampleMetric
from langevin.metrics.fid_infinity import ExtrapolatedFrechetDistance
from langevin.metrics.gathered import Gaussian, gaussian_of
from langevin.metrics.kid import KernelDistance
from langevin.metrics.memorisation import Memorisation
from langevin.metrics.precision_recall import PrecisionRecall
from langevin.metrics.reference import Reference

BATCH = 250


class Known(Reference):
    """A reference whose features are known, as they are in any evaluation but a run's first."""

    def __init__(self, features: Tensor) -> None:
        super().__init__(np.zeros((len(features), 2, 2, 1), np.uint8), sha256="")
        self.features = features
        self.gaussian = gaussian_of(features)

    def moments(self, output: str) -> Gaussian:
        """The Gaussian of the features."""
        return self.gaussian

    def rows(self, output: str) -> Tensor:
        """The features."""
        return self.features


def drawn(number: int, dimensions: int, seed: int, scale: float, power: float) -> Tensor:
    """Normal features whose n-th largest variance is ``n ** -power``.

    Those of one variance are the hardest for nearest neighbours: all are nearly at one distance.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = scale * torch.randn(number, dimensions, generator=generator)
    if not power:
        return rows
    mix = torch.linalg.qr(torch.randn(dimensions, dimensions, generator=torch.Generator().manual_seed(0))).Q
    return rows * torch.arange(1, dimensions + 1).pow(-power / 2) @ mix


METRICS: dict[str, type[SampleMetric]] = {
    "kid": KernelDistance,
    "fid_infinity": ExtrapolatedFrechetDistance,
    "precision_recall": PrecisionRecall,
    "memorisation": Memorisation,
}


def measure(dimensions: int, number: int, names: list[str], power: float) -> dict[str, float]:
    """CPU seconds of each metric's computation on as many samples as reference images, after all are counted in."""
    extractor = Features()
    extractor.sizes = {"features": dimensions}
    samples = drawn(number, dimensions, 1, 0.98, power)
    reference = Known(drawn(number, dimensions, 2, 1.0, power))
    metrics = {name: METRICS[name]() for name in names}
    stored = torch.zeros(number, 1, 2, 2, dtype=torch.uint8)
    seconds = {}
    plan = Plan(number, reference, extractor)
    for name, metric in metrics.items():
        start = time.process_time()
        metric.begin(plan)
        seconds[name] = time.process_time() - start
    for index in torch.arange(number).split(BATCH):
        for metric in metrics.values():
            metric.update({"features": samples[index], "stored": stored[index]}, {}, index)
    for name, metric in metrics.items():
        start = time.process_time()
        values = metric.compute()
        seconds[name] += time.process_time() - start
        print("  ", {key: float(value) for key, value in values.items()})
        metric.reset()
    return seconds


def main() -> None:
    """Print the seconds of each metric by the number of images, the slopes of their logarithms, and the memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dimensions", type=int)
    parser.add_argument("numbers", type=int, nargs="+")
    parser.add_argument("--metrics", nargs="+", choices=METRICS, default=list(METRICS))
    parser.add_argument("--power", type=float, default=0.0, help="of the decay of the variances")
    arguments = parser.parse_args()
    dimensions, numbers = arguments.dimensions, arguments.numbers
    keep_memory()
    print(f"{torch.get_num_threads()} threads, {dimensions} features")
    before: tuple[int, dict[str, float]] | None = None
    for number in numbers:
        seconds = measure(dimensions, number, arguments.metrics, arguments.power)
        seconds["all"] = sum(seconds.values())
        print(f"{number:6d}: " + ", ".join(f"{name} {value:.2f} s of CPU" for name, value in seconds.items()))
        if before is not None:
            ratio = math.log(number / before[0])
            print("slopes: " + ", ".join(f"{k} {math.log(v / before[1][k]) / ratio:.2f}" for k, v in seconds.items()))
        before = number, seconds
    print(f"peak of memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
