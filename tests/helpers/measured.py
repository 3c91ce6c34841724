"""Metrics of features that are given, without an extractor."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from langevin.metrics.base import Plan, SampleMetric
from langevin.metrics.gathered import Gaussian
from langevin.metrics.reference import Reference

from .extractors import TinyExtractor


class KnownReference(Reference):
    """A reference of known features (N, D), whatever the output; its images are black unless given."""

    def __init__(self, features: Tensor, labels: np.ndarray | None = None, images: np.ndarray | None = None) -> None:
        super().__init__(np.zeros((len(features), 8, 8, 1), np.uint8) if images is None else images, labels)
        self.features = features

    def moments(self, output: str) -> Gaussian:
        """By numpy."""
        rows = self.features.double().numpy()
        covariance = torch.from_numpy(np.cov(rows.T))
        return Gaussian(len(rows), torch.from_numpy(rows.mean(0)), covariance)

    def rows(self, output: str) -> Tensor:
        """As given."""
        return self.features


def reference_of(number: int, labels: np.ndarray | None = None) -> Reference:
    """One of so many images, all black."""
    return Reference(np.zeros((number, 8, 8, 1), np.uint8), labels)


def measured(
    metric: SampleMetric,
    outputs: Mapping[str, Tensor],
    reference: Reference,
    labels: Tensor | None = None,
    order: Tensor | None = None,
    official: bool = False,
    targets: Tensor | None = None,
) -> dict[str, Tensor]:
    """The values of samples that arrive by sevens, in some order; targets are images (N, C, H, W)."""
    number = len(next(iter(outputs.values())))
    extractor = TinyExtractor(official)
    extractor.sizes = {**extractor.sizes, **{name: rows.shape[1] for name, rows in outputs.items() if rows.ndim == 2}}
    cond = {} if labels is None else {"label": labels}
    target = None if targets is None else Reference(targets.permute(0, 2, 3, 1).numpy())
    metric.begin(Plan(number, reference, extractor, cond, target))
    for part in (torch.arange(number) if order is None else order).split(7):
        of_part = {name: rows[part] for name, rows in outputs.items()}
        of_cond = {name: column[part] for name, column in cond.items()}
        metric.update(of_part, of_cond, part, None if targets is None else targets[part])
    return metric.compute()
