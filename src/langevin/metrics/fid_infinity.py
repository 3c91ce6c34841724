"""The Frechet distance without its bias by the number of samples."""

from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from langevin.errors import UserError
from langevin.interrupt import stop_on_signal
from langevin.metrics.base import Plan, SampleSetMetric
from langevin.metrics.fid import Rooted, frechet_distance, rooted, rooted_rows
from langevin.metrics.gathered import ROWS, Gaussian, outer_of, symmetric

TOGETHER = 4
"""Subsets whose sums share rows: of more, adding the sums of the 2^n kinds of rows would take longer than it saves."""


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
        subsets = [torch.from_numpy(rng.permutation(len(samples))[:size]) for size in sizes]
        distances = torch.empty(len(sizes), dtype=torch.float64, device=self.device)
        for which, subset in stop_on_signal(rooted_subsets(samples, subsets)):
            distances[which] = frechet_distance(subset, reference)
        return {self.key: _intercept(1 / torch.from_numpy(sizes).to(distances), distances)}


def rooted_subsets(features: Tensor, subsets: Sequence[Tensor]) -> Iterator[tuple[int, Rooted]]:
    """The Gaussians of subsets of some features, each with its place among them, in any order.

    A large subset's sum of outer products is known by what it has or by what it leaves out, whichever is less. Some of
    these parts at a time are cut where they overlap, so that no row is multiplied twice for them.

    Args:
        features: (N, D), N at least 2.
        subsets: which rows each has, different integers, at least 2.
    """
    large = [which for which, subset in enumerate(subsets) if len(subset) > features.shape[1]]
    for which in set(range(len(subsets))) - set(large):
        yield which, rooted_rows(features[subsets[which].to(features.device)])
    if not large:
        return
    number, mean = len(features), features.mean(0, dtype=torch.float64)
    parts = torch.zeros(len(subsets), number, dtype=torch.bool)
    for which in large:
        parts[which, subsets[which]] = True
        parts[which] ^= 2 * len(subsets[which]) > number
    large.sort(key=lambda which: -int(parts[which].sum()))
    whole = None  # found with the first, of which the fewest rows are in none
    for start in range(0, len(large), TOGETHER):
        together = large[start : start + TOGETHER]
        sums, outers, of_all = _part_sums(features, mean, parts[together], whole is None)
        whole = of_all if whole is None else whole
        for which, total, outer in zip(together, sums, outers, strict=True):
            size = len(subsets[which])
            if 2 * size > number:
                total, outer = -total, whole - outer
            # The sums are about the mean of all, which is near a subset's, so that little cancels. Where one far point
            # moves that mean, up to 3e-8 of the traces were lost.
            offset = total / size
            about_mean = symmetric(outer) - size * torch.outer(offset, offset)
            yield which, rooted(Gaussian(size, mean + offset, about_mean / (size - 1)), features.device)


def _part_sums(
    features: Tensor, centre: Tensor, parts: Tensor, with_whole: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Sums of parts of some features (N, D) about a centre, each row multiplied once.

    Args:
        features: see above.
        centre: float64 (D,).
        parts: whether each row is in each part, bool (P, N).
        with_whole: whether the outer products of all rows are wanted.

    Returns:
        The sums, float64 (P, D); of each part the lower triangle of the sum of outer products, float64 (P, D, D); and
        that of all rows, None where it is not wanted.
    """
    kind = (parts.long() << torch.arange(len(parts))[:, None]).sum(0).to(features.device)  # by the parts it is in
    sums, outers = (centre.new_zeros(len(parts), *[len(centre)] * times) for times in (1, 2))
    whole = torch.zeros_like(outers[0]) if with_whole else None
    for each in range(0 if with_whole else 1, 1 << len(parts)):
        rows = features[kind == each]
        total = torch.stack([(part.double() - centre).sum(0) for part in rows.split(ROWS)]).sum(0)
        outer = outer_of(rows, centre)
        for which in range(len(parts)):
            if each >> which & 1:
                sums[which] += total
                outers[which] += outer
        if whole is not None:
            whole += outer
    return sums, outers, whole


def _intercept(x: Tensor, y: Tensor) -> Tensor:
    """Where the straight line of least squares through some points meets x = 0."""
    offset = x - x.mean()
    return y.mean() - (offset @ y) / offset.square().sum() * x.mean()
