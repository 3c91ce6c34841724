"""Are the statistics of a million images gathered in constant memory, and exact?

Usage: ``python -m experiments.scale.stream DIMENSIONS NUMBER [NUMBER ...]``: numbers of images, rising
"""

import sys
import time
from collections.abc import Iterator

import torch
from experiments.metric_cost.benchmark import held
from torch import Tensor

from langevin.metrics.gathered import Moments

BATCH = 250


def batches(number: int, dimensions: int) -> Iterator[Tensor]:
    """Features far from 0, of which covariances lose digits where they are summed carelessly; the same each time."""
    generator = torch.Generator().manual_seed(0)
    pool = 10 + torch.randn(16 * BATCH, dimensions, generator=generator)
    factors = 1 + 0.1 * torch.randn(-(-number // BATCH), generator=generator)
    for at, factor in enumerate(factors):
        start = at % 16 * BATCH
        yield pool[start : start + min(BATCH, number - at * BATCH)] * factor


def two_passes(number: int, dimensions: int) -> tuple[Tensor, Tensor]:
    """Mean and covariance by the definition: the mean first, then the products about it."""
    mean = torch.stack([part.double().sum(0) for part in batches(number, dimensions)]).sum(0) / number
    products = torch.zeros(dimensions, dimensions, dtype=torch.float64)
    for part in batches(number, dimensions):
        products.addmm_((part - mean).T, part - mean)
    return mean, products / (number - 1)


def main() -> None:
    """Print a line of CSV for each number of images."""
    dimensions, *numbers = map(int, sys.argv[1:])
    print("images,seconds,bytes held,error of the mean,error of the covariance")
    for number in numbers:
        moments, most, spent = Moments(dimensions), 0, 0.0
        for part in batches(number, dimensions):
            start = time.process_time()
            moments.update(part)
            spent += time.process_time() - start
            most = max(most, held(moments))
        found = moments.compute()
        mean, covariance = two_passes(number, dimensions)
        errors = [
            float((a - b).abs().max() / b.abs().max()) for a, b in zip(found[1:], (mean, covariance), strict=True)
        ]
        print(f"{number},{spent:.3f},{most}," + ",".join(f"{error:.1e}" for error in errors), flush=True)


if __name__ == "__main__":
    main()
