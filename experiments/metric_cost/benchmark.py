"""What does FID itself cost, beside sampling and the extractor, and does its memory grow with the number of samples?

Usage: ``python -m experiments.metric_cost.benchmark [BATCH_SIZE]``
"""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from langevin.features.extractor import FeatureExtractor
from langevin.metrics.base import Plan
from langevin.metrics.fid import FrechetDistance
from langevin.metrics.gathered import gaussian_of
from langevin.metrics.reference import Reference

DIMENSIONS = 2048


class Features(FeatureExtractor):
    """Stands for Inception: its features are made here."""

    sizes = {"features": DIMENSIONS}  # noqa: RUF012
    name, sha256, preprocessing, official = "inception", "", "", True

    def prepare(self) -> None:
        """There are no weights."""

    def extract(self, images: Tensor) -> dict[str, Tensor]:
        """Never called."""
        raise NotImplementedError


class Known(Reference):
    """A reference whose Gaussian is known, as it is in any evaluation but a run's first."""

    def moments(self, output: str) -> Any:
        """The Gaussian of the same kind of features as the samples'."""
        return self.published[output]


def batches(number: int, size: int) -> Iterator[Tensor]:
    """Correlated, positive features with a spectrum that decays as Inception's does; the same few again and again."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.arange(1, DIMENSIONS + 1).pow(-0.75)
    mix = torch.linalg.qr(torch.randn(DIMENSIONS, DIMENSIONS, generator=generator)).Q
    pool = torch.randn(8192, DIMENSIONS, generator=generator) * scales @ mix
    for start in range(0, number, size):
        yield pool.roll(-start, 0)[: min(size, number - start)]


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What the work returns, its seconds, and its CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def held(metric: torch.nn.Module) -> int:
    """Bytes of the metric's states and of those of its children."""
    states = [state for part in metric.modules() for state in getattr(part, "metric_state", {}).values()]
    tensors = [tensor for state in states for tensor in (state if isinstance(state, list) else [state])]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def main() -> None:
    """Print the seconds of counting in and of the distance, and the memory of the sums."""
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 250
    print(f"{torch.get_num_threads()} threads, {DIMENSIONS} features, batches of {size}")
    known = Known(None, published={"features": gaussian_of(torch.cat(list(batches(10_000, size))))}, sha256="")
    for number in (10_000, 50_000):
        metric, plan = FrechetDistance(), Plan(number, known, Features())
        _, fit_wall, fit_cpu = timed(lambda metric=metric, plan=plan: metric.begin(plan))
        made = list(batches(number, size)) if number == 10_000 else list(batches(10_000, size)) * 5
        for warm in made[:20]:
            metric.update({"features": warm}, {}, torch.empty(0))
        metric.reset()

        def count(metric: FrechetDistance = metric, made: list[Tensor] = made) -> None:
            for features in made:
                metric.update({"features": features}, {}, torch.empty(0))

        _, wall, cpu = timed(count)
        memory = held(metric)
        value, root_wall, root_cpu = timed(metric.compute)
        print(
            f"{number:6d} samples: counting in {wall:.2f} s ({cpu:.2f} of CPU), distance {root_wall:.2f} s "
            f"({root_cpu:.2f}), once for the reference {fit_wall:.2f} s ({fit_cpu:.2f}); {memory / 1e6:.0f} MB of "
            f"sums; {value}"
        )


if __name__ == "__main__":
    main()
