"""The Frechet Inception Distance."""

from typing import Annotated, ClassVar, NamedTuple

import torch
from annotated_types import Ge
from torch import Tensor

from langevin.errors import UserError
from langevin.metrics.base import Columns, Plan, SampleMetric
from langevin.metrics.gathered import Gaussian, Moments, gaussian_of
from langevin.metrics.halves import by_transposed, inverse_of, lower_outer, transposed_by

TOLERANCE = 1e-11
"""Error allowed in the distance, relative to the sum of the traces."""


class FrechetDistance(SampleMetric):
    r"""Distance between the Gaussians fitted to the features of the samples and of the reference; lower is better.

    ``|mu - mu_r|^2 + tr(S + S_r - 2 (S S_r)^(1/2))`` with unbiased covariances (Heusel et al. 2017, arXiv 1706.08500,
    section 3), in float64. Reported as ``fid@N`` on the official Inception weights, else as ``fd_<extractor>@N``. The
    estimate falls with the number of samples N: compare values of the same N only.

    Args:
        min_samples: refuse to work with fewer samples or fewer reference images than this, at least 2. None means the
            number of feature dimensions (2048 for Inception), below which a covariance is singular.
    """

    reports = ("fid@N", "fd_*@N")
    reads = ("features",)
    moments_of = ("features",)
    non_protocol_params = ("min_samples",)
    higher_is_better = False

    names: ClassVar[tuple[str, str]] = ("fid", "fd")
    samples: Moments
    reference: "Rooted"

    def __init__(self, min_samples: Annotated[int, Ge(2)] | None = None) -> None:
        super().__init__()
        self.min_samples = min_samples

    def check(self, plan: Plan) -> None:
        """Refuse fewer samples or reference images than `min_samples`, see the base class."""
        (output,) = self.reads
        dimensions = plan.features.sizes[output]
        least = dimensions if self.min_samples is None else self.min_samples
        name = self.names[0]
        for what, number in plan.counts():
            if number is not None and number < least:
                raise UserError(
                    f"{what}={number} is too few for metrics.{name}, which asks for {least}: with fewer images than "
                    f"the {dimensions} features the covariance is singular and the estimate far too high. Use more "
                    f"images, or set metrics.{name}.min_samples lower (at least 2) and compare only values of the same "
                    "number"
                )

    def begin(self, plan: Plan) -> None:
        """Allocate the sums and keep the reference's Gaussian, see the base class."""
        super().begin(plan)
        (output,) = self.reads
        self.key = plan.key(*self.names)
        self.samples = Moments(plan.features.sizes[output])
        self.reference = rooted(plan.reference.moments(output), self.device)

    def update(self, samples: Columns, cond: Columns, index: Tensor, target: Tensor | None = None) -> None:
        """Count in the features, see the base class."""
        (output,) = self.reads
        self.samples.update(samples[output])

    def compute(self) -> dict[str, Tensor]:
        """Return the distance, in [0, inf) up to rounding, see the base class."""
        samples: Gaussian = self.samples.compute()
        self._require_all(samples.number)
        return {self.key: frechet_distance(rooted(samples, self.device), self.reference.to(self.device))}


class Rooted(NamedTuple):
    """A Gaussian as its distances need it.

    Attributes:
        mean: float64 (D,).
        trace: of the covariance.
        root: float64 (D, rank), ``root root^T`` is the covariance; lower triangular where it has an inverse.
        inverse: of the root, float64 (D, D); None where the covariance is not safely regular.
    """

    mean: Tensor
    trace: Tensor
    root: Tensor
    inverse: Tensor | None

    def to(self, device: torch.device) -> "Rooted":
        """The same on another device."""
        inverse = None if self.inverse is None else self.inverse.to(device)
        return Rooted(self.mean.to(device), self.trace.to(device), self.root.to(device), inverse)


def rooted(gaussian: Gaussian, device: torch.device) -> Rooted:
    """Take the root of a Gaussian's covariance, symmetric and positive semi-definite up to rounding."""
    covariance = gaussian.covariance.to(device)
    return Rooted(gaussian.mean.to(device), covariance.trace(), *_root(covariance))


def rooted_rows(features: Tensor) -> Rooted:
    """The Gaussian fitted to features (N, D), N at least 2, on their device."""
    if len(features) > features.shape[1]:
        return rooted(gaussian_of(features), features.device)
    mean = features.mean(0, dtype=torch.float64)
    root = (features.double() - mean).T / (len(features) - 1) ** 0.5  # a root already, and smaller than any other
    return Rooted(mean, root.square().sum(), root, None)


def frechet_distance(first: Rooted, second: Rooted) -> Tensor:
    """Squared 2-Wasserstein distance of two Gaussians, exact also where the covariances are singular.

    ``tr((S1 S2)^(1/2))`` is the sum of the singular values of ``R1^T R2``, for any ``R R^T = S``: no complex numbers,
    and nothing small is squared and rooted again, which would lose it beside a dominant eigenvalue.

    Returns:
        A float64 scalar; nan where some features are not finite.
    """
    traces = first.trace + second.trace
    if not traces.isfinite():
        return torch.full_like(traces, torch.nan)
    values = _regular_values(first, second, TOLERANCE * traces)
    if values is None:
        values = torch.linalg.svdvals(first.root.T @ second.root)
    return (first.mean - second.mean).square().sum() + traces - 2 * values.sum()


def _root(covariance: Tensor) -> tuple[Tensor, Tensor | None]:
    """A root (D, rank), and its inverse if the covariance is safely regular."""
    size, eps = len(covariance), torch.finfo(covariance.dtype).eps
    if not covariance.trace().isfinite():  # of which eigenvalues cannot be found
        return covariance, None
    root, failed = torch.linalg.cholesky_ex(covariance)
    if not failed:
        inverse = inverse_of(root)
        # The norms are at least the largest eigenvalue and one by the smallest.
        if covariance.trace() * inverse.square().sum() * size * eps < 1:
            return root, inverse
    # The root would raise a zero eigenvalue's rounding error from 1e-16 to 1e-8: such are left out.
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > size * eps * values[-1]
    return vectors[:, kept] * values[kept].sqrt(), None


def _regular_values(first: Rooted, second: Rooted, tolerance: Tensor) -> Tensor | None:
    """Singular values of ``R1^T R2``, or None where the sum of their errors may exceed `tolerance`.

    Eigenvalues take a quarter of the time of singular values. With ``A = R1^T R2``, those of ``A^T A`` give the large
    ones well and the small ones badly; those of ``A^-1 A^-T``, needed where the small ones matter, the other way round.
    """
    if first.inverse is None or second.inverse is None:
        return None
    squares = torch.linalg.eigvalsh(lower_outer(transposed_by(first.root, second.root)))  # reads the lower half
    eps = torch.finfo(squares.dtype).eps
    large = squares.sqrt()
    if squares[0] > 0 and eps * (squares[-1] / large).sum() < tolerance:
        return large
    small = torch.linalg.eigvalsh(lower_outer(by_transposed(first.inverse, second.inverse))).rsqrt().flip(0)
    most, least = large[-1], small[0]
    is_large = large.square() > most * least
    values = torch.where(is_large, large, small)
    error = eps * torch.where(is_large, most.square() / values, values * most / least).sum()
    return values if error < tolerance else None
