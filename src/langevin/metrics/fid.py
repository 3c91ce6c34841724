"""The Frechet Inception Distance."""

from collections.abc import Mapping

import torch
from scipy.linalg.blas import dsyrk
from torch import Tensor

from langevin.errors import UserError
from langevin.metrics.base import SampleMetric
from langevin.metrics.features import FeatureExtractor

ROWS = 1024
"""Images whose outer products are added at once: by 64, most of the time would go to moving the sum through memory."""

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

    needs_features = True
    needs_reference = True
    higher_is_better = False

    count: Tensor
    sum: Tensor
    outer: Tensor
    recent: list[Tensor]
    reference_count: Tensor
    reference_sum: Tensor
    reference_outer: Tensor
    reference_recent: list[Tensor]

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
        """Add the sums, and lists of the features (fewer than `ROWS`) that are not in them yet, see the base class."""
        super().begin(num_samples, features)
        self.key = f"{features.metric_name('fid', 'fd')}@{num_samples}"
        size = features.sizes["features"]
        for of in ("", "reference_"):
            self._add_sum(f"{of}count", dtype=torch.int64)
            self._add_sum(f"{of}sum", size)
            self._add_sum(f"{of}outer", size, size)
            self._add_rows(f"{of}recent", size)

    def update(self, outputs: Mapping[str, Tensor], labels: Tensor | None, index: Tensor, real: bool) -> None:
        """Count in ``features`` (B, D), see the base class."""
        features = outputs["features"]
        of = "reference_" if real else ""
        recent = getattr(self, f"{of}recent")
        recent.append(features)
        sums: dict[str, int | Tensor] = {"count": len(features)}
        if sum(map(len, recent)) >= ROWS:
            rows = self._rows(f"{of}recent").double()
            self._clear_rows(f"{of}recent")
            sums["sum"] = rows.sum(0)
            _add_outer(getattr(self, f"{of}outer"), rows)
        self._accumulate(**{of + name: value for name, value in sums.items()})

    def compute(self) -> dict[str, Tensor]:
        """Return the distance, in [0, inf) up to rounding, see the base class."""
        self._require_all(self.count)
        if int(self.reference_count) == 0:
            raise RuntimeError("FrechetDistance was given no reference images")
        return {self.key: frechet_distance(*self._moments(""), *self._moments("reference_"))}

    def _moments(self, of: str) -> tuple[Tensor, Tensor]:
        rows = self._rows(f"{of}recent").double()
        outer = getattr(self, f"{of}outer").clone()
        _add_outer(outer, rows)
        outer = outer.tril() + outer.tril(-1).T
        count, total = getattr(self, f"{of}count"), getattr(self, f"{of}sum") + rows.sum(0)
        mean = total / count
        return mean, (outer - count * torch.outer(mean, mean)) / (count - 1)


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
    traces = covariance1.trace() + covariance2.trace()
    (root1, inverse1), (root2, inverse2) = _root(covariance1), _root(covariance2)
    product = root1.T @ root2
    values = None
    if inverse1 is not None and inverse2 is not None:
        values = _singular_values(product, inverse2 @ inverse1.T, TOLERANCE * traces)
    if values is None:
        values = torch.linalg.svdvals(product)
    return (mean1 - mean2).square().sum() + traces - 2 * values.sum()


def _add_outer(total: Tensor, rows: Tensor) -> None:
    """Add ``rows^T rows`` to the lower triangle of `total`, float64 (D, D), in place; the upper one is undefined."""
    if total.device.type == "cpu":  # half the work of a product that is not known to be symmetric
        # BLAS counts columns first. Through numpy, also a state made under Lightning's inference mode can be changed.
        dsyrk(1.0, rows.numpy().T, beta=1.0, c=total.numpy().T, overwrite_c=True)
    else:
        with torch.inference_mode():
            total.addmm_(rows.T, rows)


def _root(covariance: Tensor) -> tuple[Tensor, Tensor | None]:
    """A root (D, rank), and its inverse if the covariance is safely regular."""
    size, eps = len(covariance), torch.finfo(covariance.dtype).eps
    root, failed = torch.linalg.cholesky_ex(covariance)
    if not failed:
        inverse = torch.linalg.solve_triangular(root, torch.eye(size).to(root), upper=False)
        # The norms are at least the largest eigenvalue and one by the smallest.
        if covariance.trace() * inverse.square().sum() * size * eps < 1:
            return root, inverse
    # The root would raise a zero eigenvalue's rounding error from 1e-16 to 1e-8: such are left out.
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > size * eps * values[-1]
    return vectors[:, kept] * values[kept].sqrt(), None


def _singular_values(matrix: Tensor, inverse: Tensor, tolerance: Tensor) -> Tensor | None:
    """Singular values of a regular matrix, or None where the sum of their errors may exceed `tolerance`.

    Eigenvalues take a tenth of the time of singular values. Those of ``A^T A`` give the large ones well and the small
    ones badly; those of ``A^-1 A^-T`` the other way round.
    """
    large = torch.linalg.eigvalsh(matrix.T @ matrix).sqrt()
    small = torch.linalg.eigvalsh(inverse @ inverse.T).rsqrt().flip(0)
    most, least = large[-1], small[0]
    is_large = large.square() > most * least
    values = torch.where(is_large, large, small)
    eps = torch.finfo(values.dtype).eps
    error = eps * torch.where(is_large, most.square() / values, values * most / least).sum()
    return values if error < tolerance else None
