"""The Frechet distance without its bias by the number of samples."""

import functools
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from langevin.errors import UserError
from langevin.interrupt import stop_on_signal
from langevin.metrics.base import Plan, SampleSetMetric
from langevin.metrics.fid import Rooted, frechet_distance, rooted, rooted_rows
from langevin.metrics.gathered import Gaussian, gaussian_of, outer_of


class ExtrapolatedFrechetDistance(SampleSetMetric):
    """FID extrapolated to infinitely many samples; lower is better.

    The bias of FID is nearly a straight line in 1 / N (Chong & Forsyth 2020, arXiv 1911.07023). As in their code,
    FIDs are taken of random subsets of the samples against the whole reference, at sizes evenly spaced from `min_size`
    to all, each drawn without replacement and independently of the others; a line is fitted by least squares, and its
    intercept is the value. Two things differ: the samples are the model's ordinary ones (theirs start from Sobol
    points, of use to a generator of one noise vector), and the draws have a fixed seed. The bias by the reference's
    number stays. Reported as ``fid_infinity@N`` on the official Inception weights, else as
    ``fd_infinity_<extractor>@N``; it may fall below 0.

    It takes `num_sizes` times FID's time and the memory of all samples' features.

    Args:
        num_sizes: number of subsets, at least 2.
        min_size: samples in the smallest one, at least 2; there must be more samples than this, and as many reference
            images.
        seed: of the draws, in [0, 2^32).
    """

    reports = ("fid_infinity@N", "fd_infinity_*@N")
    moments_of = ("features",)
    higher_is_better = False

    reference: Rooted

    def __init__(
        self,
        num_sizes: Annotated[int, Ge(2)] = 15,
        min_size: Annotated[int, Ge(2)] = 5000,
        seed: Annotated[int, Ge(0), Le(4294967295)] = 2020,
    ) -> None:
        super().__init__()
        self.num_sizes = num_sizes
        self.min_size = min_size
        self.seed = seed

    def check(self, plan: Plan) -> None:
        """Refuse too few images for subsets of different sizes, see the base class."""
        least = self.min_size + self.num_sizes - 1
        (_, samples), (of_reference, number) = plan.counts()
        if samples < least:
            raise UserError(
                f"num_samples={samples} is too few for metrics.fid_infinity of num_sizes={self.num_sizes} different "
                f"sizes from min_size={self.min_size}: use at least {least} samples, or a smaller min_size (at least "
                "2, better not below the number of features)"
            )
        if number is not None and number < self.min_size:
            raise UserError(
                f"{of_reference}={number} is too few for metrics.fid_infinity.min_size={self.min_size}: use more "
                "images, or a smaller min_size (at least 2, better not below the number of features)"
            )

    def begin(self, plan: Plan) -> None:
        """Keep the reference's Gaussian, see the base class."""
        super().begin(plan)
        self.key = plan.key("fid_infinity", "fd_infinity")
        self.reference = rooted(plan.reference.moments("features"), self.device)

    def compute(self) -> dict[str, Tensor]:
        """Return the intercept, see the base class."""
        samples, reference = self._samples(), self.reference.to(self.device)
        rng = np.random.RandomState(self.seed)
        sizes = np.linspace(self.min_size, len(samples), self.num_sizes).astype(int)
        subsets = Subsets(samples)
        orders = stop_on_signal(torch.from_numpy(rng.permutation(len(samples))) for _ in sizes)
        distances = torch.stack(
            [
                frechet_distance(subsets.rooted(order, size), reference)
                for order, size in zip(orders, sizes.tolist(), strict=True)
            ]
        )
        return {self.key: _intercept(1 / torch.from_numpy(sizes).to(distances), distances)}


class Subsets:
    """The Gaussians of subsets of some features, of a subset of more than half of them by what it leaves out.

    Args:
        features: (N, D), N at least 2.
    """

    def __init__(self, features: Tensor) -> None:
        self.features = features

    @functools.cached_property
    def whole(self) -> Gaussian:
        """The Gaussian of all."""
        return gaussian_of(self.features)

    def rooted(self, order: Tensor, size: int) -> Rooted:
        """The Gaussian of the first `size` in an order, integers (N,); at least 2."""
        left_out = self.features[order[size:]]
        if size <= self.features.shape[1] or len(left_out) >= size:
            return rooted_rows(self.features[order[:size]])
        total, mean, covariance = self.whole
        # Both sums are about the mean of all, from which a subset's is so near that nothing cancels.
        about_mean = covariance * (total - 1) - outer_of(left_out, mean)
        offset = (left_out.double() - mean).sum(0) / -size
        about_mean -= size * torch.outer(offset, offset)
        return rooted(Gaussian(size, mean + offset, about_mean / (size - 1)), self.features.device)


def _intercept(x: Tensor, y: Tensor) -> Tensor:
    """Where the straight line of least squares through some points meets x = 0."""
    offset = x - x.mean()
    return y.mean() - (offset @ y) / offset.square().sum() * x.mean()
