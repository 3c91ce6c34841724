"""Precision and recall, density and coverage, by nearest neighbours."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from langevin.errors import UserError
from langevin.metrics.base import FeatureSetMetric, Plan
from langevin.metrics.neighbourhoods import Found, Neighbourhoods

NAMES = ("precision", "recall", "density", "coverage")


class PrecisionRecall(FeatureSetMetric):
    """How real the samples look, and how much of the reference they cover; higher is better.

    Each image has a ball of features, which reaches to its k-th nearest neighbour in its own set.

    - ``precision``: share of the samples in a ball of the reference; ``recall``: share of the reference in a ball of
      the samples (Kynkaanniemi et al. 2019, arXiv 1904.06991, equation 2; there k = 3). Both in [0, 1].
    - ``density``: how many of the reference's balls hold a sample, by k, mean over the samples; about 1 for equal
      distributions, above where samples crowd. ``coverage``: share of the reference's balls that hold a sample, in
      [0, 1] (Naeem et al. 2020, arXiv 2002.09797, equations 3 and 4; there k = 5).

    Distances are taken in float64 and balls are closed, so a copy of a reference image always lies in its ball, also in
    one of radius 0 (an image that occurs more than k times): constant samples equal to a constant reference of M
    images have precision, recall and coverage 1 and density M / k; different constants have 0 of all four.

    Reported as ``precision@N`` and so on for the official Inception weights (as ADM does; the paper used VGG-16), else
    as ``precision_<extractor>@N``. All four change with the numbers of samples and of reference images, so compare
    values of the same numbers only.

    Args:
        precision_recall_k: k for precision and recall, at least 1 and less than the number of images in either set.
        density_coverage_k: k for density and coverage, at least 1 and less than the number of reference images.
    """

    reports = tuple(f"{name}{of}@N" for name in NAMES for of in ("", "_*"))
    higher_is_better = True

    def __init__(
        self, precision_recall_k: Annotated[int, Ge(1)] = 3, density_coverage_k: Annotated[int, Ge(1)] = 5
    ) -> None:
        super().__init__()
        self.precision_recall_k = precision_recall_k
        self.density_coverage_k = density_coverage_k

    def check(self, plan: Plan) -> None:
        """Refuse a set in which an image has no k-th neighbour, see the base class."""
        of_samples, of_reference = plan.counts()
        for (name, number), option in (
            (of_samples, "precision_recall_k"),
            (of_reference, "precision_recall_k"),
            (of_reference, "density_coverage_k"),
        ):
            k = getattr(self, option)
            if number is not None and number <= k:
                raise UserError(
                    f"{name}={number} is too few for metrics.precision_recall.{option}={k}: an image needs {k} "
                    f"others as neighbours: use at least {k + 1} images or a smaller k (at least 1)"
                )

    def begin(self, plan: Plan) -> None:
        """Name the values, see the base class."""
        super().begin(plan)
        self.keys = [plan.key(name, name) for name in NAMES]
        self.neighbourhoods = plan.reference.neighbourhoods("features")
        self.neighbourhoods.ask((self.precision_recall_k, self.density_coverage_k), (self.precision_recall_k,))

    def compute(self) -> dict[str, Tensor]:
        """Return the four values, see the base class."""
        found = self.neighbourhoods.find(self._samples())
        values = _values(found, self.precision_recall_k, self.density_coverage_k)
        return dict(zip(self.keys, values, strict=True))


def by_neighbours(
    samples: Tensor, reference: Tensor, precision_recall_k: int, density_coverage_k: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Precision, recall, density and coverage, see `PrecisionRecall`; in memory of N + M, not of N times M.

    Args:
        samples: features (N, D).
        reference: features (M, D).
        precision_recall_k: k for precision and recall, at least 1 and less than N and M.
        density_coverage_k: k for density and coverage, at least 1 and less than M.

    Returns:
        Four float64 scalars.
    """
    neighbourhoods = Neighbourhoods(reference)
    neighbourhoods.ask((precision_recall_k, density_coverage_k), (precision_recall_k,))
    return _values(neighbourhoods.find(samples), precision_recall_k, density_coverage_k)


def _values(found: Found, precision_recall_k: int, density_coverage_k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inside = found.inside[precision_recall_k]
    density = torch.tensor(found.held[density_coverage_k] / (density_coverage_k * len(inside)), dtype=torch.float64)
    return (
        inside.double().mean(),
        found.recalled[precision_recall_k].double().mean(),
        density,
        found.holding[density_coverage_k].double().mean(),
    )
