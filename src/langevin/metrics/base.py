"""What every metric of generated images has in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from langevin.metrics.features import FeatureExtractor
from langevin.sums import SumMetric


class SampleMetric(SumMetric, ABC):
    """A metric of generated images, exact under any number of processes and any batch size.

    `Evaluation` calls, in this order: `check`; `begin`; `fit`; `update` with ``real=True`` on this process's share of
    the reference (where `needs_reference`); then for each round `update` with ``real=False`` on this process's
    share of the samples, `compute`, `reset`.

    What `update` gathers is added in `begin`: sums over the images, or rows of them, which `compute` sees from all
    processes in an order that means nothing. States named ``reference_...`` survive `reset`.

    Attributes:
        needs_features: whether `update` reads the extractor's outputs.
        needs_reference: whether `update` must see the reference images.
        needs_labels: whether the samples and the reference must come with class labels.
    """

    needs_features: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False

    num_samples: int

    def __init__(self) -> None:
        super().__init__()
        self._no_rows: dict[str, Tensor] = {}

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
        # torchmetrics empties a list in place.
        reference = {
            name: list(state) if isinstance(state, list) else state
            for name, state in self.metric_state.items()
            if name.startswith("reference_")
        }
        super().reset()
        for name in self._no_rows:
            self._clear_rows(name)
        for name, state in reference.items():
            setattr(self, name, state)

    def _add_rows(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> None:
        """Add a list state of tensors (any number of rows, *shape), which the processes join into one."""
        self.add_state(name, [], dist_reduce_fx="cat")
        self._no_rows[name] = torch.empty(0, *shape, dtype=dtype)
        self._clear_rows(name)

    def _clear_rows(self, name: str) -> None:
        # Never an empty list, for which torchmetrics would send others a tensor of another shape and type.
        setattr(self, name, [self._no_rows[name].to(self.device)])

    def _rows(self, name: str) -> Tensor:
        """All rows of a list state; within `compute`, those of all processes."""
        return dim_zero_cat(getattr(self, name))

    def _require_all(self, count: Tensor) -> None:
        # A name that says @50000 must not stand on fewer images, or on some twice.
        if int(count) != self.num_samples:
            raise RuntimeError(f"{type(self).__name__} was given {int(count)} of {self.num_samples} samples")


class FeatureSetMetric(SampleMetric):
    """A metric that needs the features of all samples and of the whole reference at once, in the images' order.

    Each process keeps the float32 features of its share (410 MB for 50,000 images and Inception) on its device; for
    `compute`, every process gathers them all.
    """

    needs_features = True
    needs_reference = True

    features: list[Tensor]
    index: list[Tensor]
    reference_features: list[Tensor]
    reference_index: list[Tensor]

    def begin(self, num_samples: int, features: FeatureExtractor) -> None:
        """Add the lists, see the base class."""
        super().begin(num_samples, features)
        for of in ("", "reference_"):
            self._add_rows(f"{of}features", features.sizes["features"])
            self._add_rows(f"{of}index", dtype=torch.int64)

    def update(self, outputs: Mapping[str, Tensor], labels: Tensor | None, index: Tensor, real: bool) -> None:
        """Keep ``features`` (B, D) and the number of each image, see the base class."""
        features = outputs["features"]
        of = "reference_" if real else ""
        getattr(self, f"{of}features").append(features)
        getattr(self, f"{of}index").append(index.to(features.device))

    def _sets(self) -> tuple[Tensor, Tensor]:
        """The features of the samples (`num_samples`, D) and of the reference (M, D), by the number of the image.

        Raises:
            RuntimeError: when an image is missing or was counted in twice.
        """
        self._require_all(torch.tensor(len(self._rows("index"))))
        return self._in_order("", "samples"), self._in_order("reference_", "reference images")

    def _in_order(self, of: str, name: str) -> Tensor:
        index, order = self._rows(f"{of}index").sort()
        if len(index) == 0:
            raise RuntimeError(f"{type(self).__name__} was given no {name}")
        if not torch.equal(index, torch.arange(len(index), device=index.device)):
            raise RuntimeError(f"{type(self).__name__} was given some {name} twice, and others not at all")
        return self._rows(f"{of}features")[order]
