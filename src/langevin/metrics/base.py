"""What every metric of generated images has in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from torch import Tensor

from langevin.metrics.features import FeatureExtractor
from langevin.sums import SumMetric


class SampleMetric(SumMetric, ABC):
    """A metric of generated images, exact under any number of processes and any batch size.

    `Evaluation` calls, in this order: `check`; `begin`; `fit`; `update` with ``real=True`` on this process's share of
    the reference (where `needs_reference`); then for each round `update` with ``real=False`` on this process's
    share of the samples, `compute`, `reset`.

    Everything that `update` gathers is a sum, added in `begin`. Those named ``reference_...`` survive `reset`.

    Attributes:
        needs_features: whether `update` reads the extractor's outputs.
        needs_reference: whether `update` must see the reference images.
        needs_labels: whether the samples and the reference must come with class labels.
    """

    needs_features: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False

    num_samples: int

    def check(self, num_samples: int, num_reference: int, features: FeatureExtractor) -> None:
        """Find a user's mistake before any work; the extractor's weights are not loaded yet.

        Args:
            num_samples: how many images will be generated, at least 1, over all processes.
            num_reference: how many reference images there are, over all processes.
            features: the extractor, for its `sizes`.

        Raises:
            UserError: when the metric cannot be computed so.
        """

    def begin(self, num_samples: int, features: FeatureExtractor) -> None:
        """Add the states for an evaluation of `num_samples` images; an override calls this first.

        Args:
            num_samples: as in `check`.
            features: the extractor, its weights loaded if `needs_features`.
        """
        self.num_samples = num_samples

    def fit(self, images: np.ndarray, labels: np.ndarray | None) -> None:
        """See the whole reference set, the same on every process; for metrics that need it at once.

        Args:
            images: uint8 (N, H, W, C).
            labels: integers (N,), or None where the reference has none.

        Raises:
            UserError: when the reference does not suit the metric.
        """

    @abstractmethod
    def update(self, outputs: Mapping[str, Tensor], labels: Tensor | None, index: Tensor, real: bool) -> None:
        """Count in some images.

        Args:
            outputs: ``images``, uint8 (B, C, H, W), and, where `needs_features`, the extractor's outputs.
            labels: the class that each image was asked for or has, integers (B,), or None.
            index: which of the ``num_samples`` (or reference) images each one is, integers (B,).
            real: whether they are reference images, which only a metric with `needs_reference` is given.
        """

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """Return the values by their reported names, after summing the states over all processes.

        Raises:
            RuntimeError: when other than `num_samples` images were counted in.
        """

    def reset(self) -> None:
        """Forget the samples, keep the reference."""
        reference = {name: state for name, state in self.metric_state.items() if name.startswith("reference_")}
        super().reset()
        for name, state in reference.items():
            setattr(self, name, state)

    def _require_all(self, count: Tensor) -> None:
        # A name that says @50000 must not stand on fewer images, or on some twice.
        if int(count) != self.num_samples:
            raise RuntimeError(f"{type(self).__name__} was given {int(count)} of {self.num_samples} samples")
