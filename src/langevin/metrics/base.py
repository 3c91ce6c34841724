"""What every metric of generated images has in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from langevin.features.extractor import FeatureExtractor
from langevin.metrics.gathered import Rows
from langevin.metrics.reference import Reference
from langevin.sums import SumStateMetric


class SampleMetric(SumStateMetric, ABC):
    """A metric of generated images, exact under any number of processes and any batch size.

    `Evaluation` calls, in this order: `check`; `begin`; `set_reference`; then for each round `update` on this process's
    part of the samples, `compute`, `reset`. What `update` gathers is added in `begin`: sums over the images, or
    children that are metrics themselves (`Moments`, `Rows`), which `compute` gets from all processes.

    Attributes:
        reads: the extractor's outputs that `update` reads.
        moments_of: the outputs of whose Gaussian in the reference `set_reference` asks.
        rows_of: the outputs of which `set_reference` asks for every reference image.
        needs_images: whether `set_reference` asks for the reference's images themselves.
        needs_labels: whether the samples and the reference must come with class labels.
        non_protocol_params: its parameters that change no value: those that only refuse an evaluation, or choose what
            is shown.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    moments_of: ClassVar[tuple[str, ...]] = ()
    rows_of: ClassVar[tuple[str, ...]] = ()
    needs_images: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    non_protocol_params: ClassVar[tuple[str, ...]] = ()

    num_samples: int

    def check(self, num_samples: int, reference: Reference, features: FeatureExtractor) -> None:
        """Find a user's mistake before any work.

        Args:
            num_samples: how many images will be generated, at least 1, over all processes.
            reference: what they are compared with, not yet gathered.
            features: the extractor, of which perhaps only `sizes` is known yet.

        Raises:
            UserError: when the metric cannot be computed so.
        """

    def check_labels(self, labels: NDArray[np.int64], reference: Reference, features: FeatureExtractor) -> None:
        """As `check`, for the classes; called where `needs_labels`.

        Args:
            labels: the requested class of each sample, (num_samples,).
            reference: as in `check`.
            features: as in `check`.

        Raises:
            UserError: when the metric cannot be computed so.
        """

    def begin(self, num_samples: int, features: FeatureExtractor) -> None:
        """Add the states for an evaluation of `num_samples` images; an override calls this first."""
        self.num_samples = num_samples

    def set_reference(self, reference: Reference) -> None:
        """See the reference, gathered, the same on every process; an override keeps of it what `compute` needs."""

    @abstractmethod
    def update(self, outputs: Mapping[str, Tensor], labels: Tensor | None, index: Tensor) -> None:
        """Count in some samples.

        Args:
            outputs: ``images``, uint8 (B, C, H, W), and the extractor's outputs, `reads` among them.
            labels: the requested class of each image, integers (B,), or None.
            index: which of the ``num_samples`` images each one is, integers (B,).
        """

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """Return the values by their reported names, after summing the states over all processes.

        Raises:
            RuntimeError: when other than `num_samples` images were counted in.
        """

    def figure(self) -> NDArray[np.uint8] | None:
        """What of the last `compute` is to be looked at: (H, W, 3), the same on every process; None if nothing is."""
        return None

    def details(self) -> dict[str, Any] | None:
        """What else the last `compute` found, as plain values, the same on every process; None if nothing."""
        return None

    def reset(self) -> None:
        """Forget the samples, keep the reference."""
        super().reset()
        for child in self.children():
            if isinstance(child, Metric):
                child.reset()

    def _require_all(self, count: int | Tensor) -> None:
        # A metric named @50000 must not be computed on fewer images, or on some twice.
        if int(count) != self.num_samples:
            raise RuntimeError(f"{type(self).__name__} was given {int(count)} of {self.num_samples} samples")


class SampleSetMetric(SampleMetric):
    """A metric that needs the features of all samples at once, in the images' order."""

    reads = ("features",)

    samples: Rows

    def begin(self, num_samples: int, features: FeatureExtractor) -> None:
        """Allocate the rows, see the base class."""
        super().begin(num_samples, features)
        self.samples = Rows(features.sizes["features"])

    def update(self, outputs: Mapping[str, Tensor], labels: Tensor | None, index: Tensor) -> None:
        """Keep ``features`` (B, D) and the number of each image, see the base class."""
        self.samples.update(outputs["features"], index)

    def _samples(self) -> Tensor:
        """The features of the samples (`num_samples`, D), by the number of the image.

        Raises:
            RuntimeError: when an image is missing or was counted in twice.
        """
        samples: Tensor = self.samples.compute()
        self._require_all(len(samples))
        return samples


class FeatureSetMetric(SampleSetMetric):
    """A metric that needs the features of the whole reference too."""

    rows_of = ("features",)

    reference: Tensor

    def set_reference(self, reference: Reference) -> None:
        """Keep the reference's features, see the base class."""
        self.reference = reference.rows("features")

    def _sets(self) -> tuple[Tensor, Tensor]:
        """The features of the samples, see `_samples`, and of the reference (M, D), in the images' order."""
        samples = self._samples()
        return samples, self.reference.to(samples.device)


def counts(num_samples: int, reference: Reference) -> tuple[tuple[str, int], tuple[str, int | None]]:
    """The two numbers of images that `SampleMetric.check` is given, each with what a user calls it."""
    return ("num_samples", num_samples), ("the number of reference images", reference.number)
