"""The Frechet Inception Distance."""

from collections.abc import Mapping

import torch
from torch import Tensor

from langevin.errors import UserError
from langevin.metrics.base import SampleMetric
from langevin.metrics.features import FeatureExtractor


class FrechetDistance(SampleMetric):
    r"""Distance between the Gaussians fitted to the features of the samples and of the reference; lower is better.

    ``|mu - mu_r|^2 + tr(S + S_r - 2 (S S_r)^(1/2))`` with unbiased covariances (Heusel et al. 2017, arXiv 1706.08500,
    section 3), in float64. Reported as ``fid@N`` on the official Inception weights, else as ``fd_<extractor>@N``. The
    estimate falls with the number of samples N: compare values of the same N only.

    Args:
        min_samples: refuse to work with fewer samples or fewer reference images than this, at least 2. None means the
            number of feature dimensions (2048 for Inception), below which a covariance is singular.
    """

    needs_features = True
    needs_reference = True
    higher_is_better = False

    count: Tensor
    sum: Tensor
    outer: Tensor
    reference_count: Tensor
    reference_sum: Tensor
    reference_outer: Tensor

    def __init__(self, min_samples: int | None = None) -> None:
        super().__init__()
        if min_samples is not None and min_samples < 2:
            raise UserError(f"metrics.fid.min_samples={min_samples}: a covariance needs at least 2 images")
        self.min_samples = min_samples

    def check(self, num_samples: int, num_reference: int, features: FeatureExtractor) -> None:
        """Refuse too few images, see the base class.

        Raises:
            UserError: when there are fewer samples or reference images than `min_samples`.
        """
        dimensions = features.sizes["features"]
        least = dimensions if self.min_samples is None else self.min_samples
        for name, number in (("num_samples", num_samples), ("the number of reference images", num_reference)):
            if number < least:
                raise UserError(
                    f"{name}={number} is too few for FID, which asks for {least}: with fewer images than its "
                    f"{dimensions} features the covariance is singular and the estimate far too high. Use more images, "
                    "or set metrics.fid.min_samples lower (at least 2) and compare only values of the same number"
                )

    def begin(self, num_samples: int, features: FeatureExtractor) -> None:
        """Add the sums, see the base class."""
        super().begin(num_samples, features)
        self.key = f"{features.metric_name('fid', 'fd')}@{num_samples}"
        size = features.sizes["features"]
        for of in ("", "reference_"):
            self._add_sum(f"{of}count", dtype=torch.int64)
            self._add_sum(f"{of}sum", size)
            self._add_sum(f"{of}outer", size, size)

    def update(self, outputs: Mapping[str, Tensor], labels: Tensor | None, index: Tensor, real: bool) -> None:
        """Add ``features`` (B, D) to the sums, see the base class."""
        features = outputs["features"].double()
        of = "reference_" if real else ""
        sums = {"count": len(features), "sum": features.sum(0), "outer": features.T @ features}
        self._accumulate(**{of + name: value for name, value in sums.items()})

    def compute(self) -> dict[str, Tensor]:
        """Return the distance, in [0, inf) up to rounding, see the base class."""
        self._require_all(self.count)
        if int(self.reference_count) == 0:
            raise RuntimeError("FrechetDistance was given no reference images")
        mean, covariance = _moments(self.count, self.sum, self.outer)
        reference_mean, reference_covariance = _moments(self.reference_count, self.reference_sum, self.reference_outer)
        return {self.key: frechet_distance(mean, covariance, reference_mean, reference_covariance)}


def frechet_distance(mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor) -> Tensor:
    """Squared 2-Wasserstein distance of two Gaussians, exact also where the covariances are singular.

    ``tr((S1 S2)^(1/2))`` is the sum of the singular values of ``R1^T R2``, for any ``R R^T = S``: no complex numbers,
    and nothing small is squared and rooted again, which would lose it beside a dominant eigenvalue.

    Args:
        mean1: float64 (D,).
        covariance1: float64 (D, D), symmetric and positive semi-definite up to rounding.
        mean2: as `mean1`.
        covariance2: as `covariance1`.

    Returns:
        A float64 scalar.
    """
    trace_of_root = torch.linalg.svdvals(_root(covariance1).T @ _root(covariance2)).sum()
    return (mean1 - mean2).square().sum() + covariance1.trace() + covariance2.trace() - 2 * trace_of_root


def _moments(count: Tensor, total: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
    mean = total / count
    return mean, (outer - count * torch.outer(mean, mean)) / (count - 1)


def _root(covariance: Tensor) -> Tensor:
    # (D, rank). The root would raise a zero eigenvalue's rounding error from 1e-16 to 1e-8: such are left out.
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1]
    return vectors[:, kept] * values[kept].sqrt()
