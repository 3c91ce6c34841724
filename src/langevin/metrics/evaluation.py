"""The one evaluation: used by the training callback and by evaluate.py alike."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from langevin.errors import UserError
from langevin.features.extractor import BATCH, FeatureExtractor
from langevin.images import enlargement
from langevin.metrics.base import SampleMetric
from langevin.metrics.reference import Reference
from langevin.protocol import protocol


class Batch(Protocol):
    """Some samples, see `Evaluation.add`."""

    @property
    def indices(self) -> Tensor:
        """Which ones, integers (B,)."""

    @property
    def images(self) -> Tensor:
        """Their images, uint8 (B, C, H, W)."""

    @property
    def labels(self) -> Tensor | None:
        """Their requested classes, integers (B,)."""


class Evaluation:
    """Some metrics over one extractor: each image passes through it once, for all of them.

    In this order: `prepare` and `gather` once, then any number of rounds of `add` (each process with its part of the
    samples, possibly none), `compute` and `reset`. The values are the same for any number of processes and any batch
    size. It is not an `nn.Module`, so that its 95 MB of weights enter no checkpoint of a LightningModule that holds it.

    Args:
        features: the extractor; its weights are looked for only if a metric needs them.
        metrics: the metrics by their names in the config; the reported names are the metrics' own.
        directory: where the reference's statistics are kept from run to run.
        settings: each metric's parameters, for the protocol.
    """

    def __init__(
        self,
        features: FeatureExtractor,
        metrics: Mapping[str, SampleMetric],
        directory: Path,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.features = features
        self.metrics = dict(metrics)
        self.directory = directory
        self.settings = {
            name: {
                key: value
                for key, value in (settings or {}).get(name, {}).items()
                if key not in metric.non_protocol_params
            }
            for name, metric in self.metrics.items()
        }
        self.device = torch.device("cpu")
        self._waiting: list[tuple[Tensor, Tensor | None, Tensor]] = []
        of_samples = {output for metric in self.metrics.values() for output in metric.reads}
        self.moments_of = sorted({output for metric in self.metrics.values() for output in metric.moments_of})
        self.rows_of = sorted({output for metric in self.metrics.values() for output in metric.rows_of})
        self.outputs = sorted({*of_samples, *self.moments_of, *self.rows_of})

    def prepare(self, num_samples: int, reference: Reference, labels: NDArray[np.int64] | None) -> None:
        """Load the weights and find every mistake: before anything is trained or sampled.

        Args:
            num_samples: how many images each round generates, over all processes.
            reference: what they are compared with.
            labels: the requested class of each sample, (num_samples,); None where no class is requested.

        Raises:
            UserError: when a metric cannot be computed so, or there are no weights.
        """
        if num_samples < 1:
            raise UserError(f"num_samples={num_samples}: must be at least 1")
        # Before the weights are loaded, where mistakes can be found without them.
        known = hasattr(self.features, "sizes")
        if known:
            self._check(num_samples, reference, labels)
        self.prepare_reference(reference)
        if not known:
            self._check(num_samples, reference, labels)
        for metric in self.metrics.values():
            metric.begin(num_samples, self.features)
        self.num_samples = num_samples
        self.to(self.device)

    def _check(self, num_samples: int, reference: Reference, labels: NDArray[np.int64] | None) -> None:
        for name, metric in self.metrics.items():
            lacking = {*metric.reads, *metric.moments_of, *metric.rows_of} - set(
                self.features.sizes if self.outputs else ()
            )
            if metric.needs_labels and reference.labels is None:
                raise UserError(f"metrics.{name} needs class labels, the data has none: drop it or use labelled data")
            if metric.needs_labels and labels is None:
                raise UserError(f"metrics.{name} needs a class-conditional model, this one is not: drop it")
            if metric.needs_images and reference.images is None:
                raise UserError(f"metrics.{name} needs the reference's images, not statistics alone: drop it")
            if lacking:
                raise UserError(
                    f"metrics.{name} needs the extractor's {' and '.join(sorted(lacking))}, but {self.features.name} "
                    f"gives {', '.join(self.features.sizes)}: drop it, or choose other features"
                )
            metric.check(num_samples, reference, self.features)
            if metric.needs_labels and labels is not None:
                metric.check_labels(labels, reference, self.features)

    def prepare_reference(self, reference: Reference) -> None:
        """Load the weights, and check that they are compatible with the reference.

        Raises:
            UserError: when there are none, or they do not.
        """
        self.reference = reference
        if not self.outputs:
            return
        self.features.prepare()
        if reference.images is not None:
            height, width, channels = reference.images.shape[1:]
            self.features.check((channels, height, width), "reference")
        offered = set(self.features.sizes)
        reference.check(self.features, offered.intersection(self.moments_of), offered.intersection(self.rows_of))

    def require_shape(self, shape: tuple[int, ...]) -> None:
        """Check that samples (channels, height, width) can be compared with the reference.

        Raises:
            UserError: when they cannot.
        """
        if self.reference.images is None:
            return
        height, width, channels = self.reference.images.shape[1:]
        if shape != (channels, height, width):
            raise UserError(
                f"samples of (channels, height, width) = {shape} cannot be compared with reference images of "
                f"{(channels, height, width)}: use the data that the model was trained on"
            )

    def protocol(self, samples: Mapping[str, Any] | None, values: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        """The record that accompanies its values, see `langevin.protocol`.

        Args:
            samples: how the samples were made; None where that is not known.
            values: what `compute` returned.
        """
        measured = {
            "num_samples": self.num_samples,
            "features": self.features.record() if self.outputs else None,
            "reference": self.reference.record(),
        }
        return protocol(measured, samples, self.settings, values)

    def to(self, device: torch.device | str) -> Self:
        """Move the extractor and the metrics, at any time; `device` must support float64."""
        self.device = torch.device(device)
        self.features.to(self.device)
        for metric in self.metrics.values():
            metric.to(self.device)
        return self

    def gather(self) -> None:
        """Compute what the metrics need of the reference; every process must call it, a second call does little."""
        self.reference.gather(self.features, self.moments_of, self.rows_of, self.device, self.directory)
        for metric in self.metrics.values():
            metric.set_reference(self.reference)

    def measure(self, batches: Iterable[Batch], number: int, show: bool) -> dict[str, dict[str, float]]:
        """One round: count in this process's samples as they come, and compute; every process must call it.

        Args:
            batches: this process's part.
            number: how many samples they are.
            show: whether to show a progress bar.
        """
        self.reset()
        with tqdm(total=number, desc="evaluate", unit="image", disable=not show) as bar:
            for batch in batches:
                self.add(batch.images, batch.labels, batch.indices)
                bar.update(len(batch.indices))
        return self.compute()

    def add(self, images: Tensor, labels: Tensor | None, index: Tensor) -> None:
        """Count in samples.

        Args:
            images: uint8 (B, C, H, W), of the reference's shape.
            labels: the requested class of each, integers (B,), or None for an unconditional model.
            index: which of the `num_samples` each one is, integers (B,): each in [0, num_samples) once over all
                batches and processes of a round.

        Raises:
            UserError: when the samples and the reference differ in shape, or a metric needs labels and there are none.
        """
        self.require_shape(tuple(images.shape[1:]))
        if labels is None and any(metric.needs_labels for metric in self.metrics.values()):
            needing = ", ".join(name for name, metric in self.metrics.items() if metric.needs_labels)
            raise UserError(f"metrics {needing}: the samples have no class labels: drop them or condition the samples")
        self._waiting.append((images.to(self.device), labels, index.to(self.device)))
        waiting = sum(len(index) for _, _, index in self._waiting)
        self._count_in(waiting - waiting % BATCH)

    def _count_in(self, number: int) -> None:
        """Pass the first `number` waiting images through the extractor, which is most efficient on whole batches."""
        if number == 0:
            return
        images = torch.cat([images for images, _, _ in self._waiting])
        index = torch.cat([index for _, _, index in self._waiting])
        given = [labels for _, labels, _ in self._waiting if labels is not None]
        labels = torch.cat(given) if given else None
        self._waiting = [(images[number:], None if labels is None else labels[number:], index[number:])]
        outputs = {"images": images[:number]}
        if self.outputs:
            outputs |= self.features(images[:number])
        for metric in self.metrics.values():
            metric.update(outputs, None if labels is None else labels[:number], index[:number])

    def compute(self) -> dict[str, dict[str, float]]:
        """Return the values of each metric by their names, the same on every process; every process must call it.

        Raises:
            RuntimeError: when the samples added since the last `reset`, over all processes, are not `num_samples`.
        """
        self._count_in(sum(len(index) for _, _, index in self._waiting))
        return {
            name: {key: float(value) for key, value in metric.compute().items()}
            for name, metric in self.metrics.items()
        }

    def figures(self) -> dict[str, NDArray[np.uint8]]:
        """What metrics show beside their values, after `compute`: uint8 (H, W, 3), the same on every process."""
        shown = {name: metric.figure() for name, metric in self.metrics.items()}
        return {name: image for name, image in shown.items() if image is not None}

    @property
    def scale(self) -> int:
        """How many times its images are to be enlarged in a PNG."""
        images = self.reference.images
        return 1 if images is None else enlargement(images.shape[1])

    def details(self) -> dict[str, dict[str, Any]]:
        """What metrics report beside their values, after `compute`: plain values, the same on every process."""
        said = {name: metric.details() for name, metric in self.metrics.items()}
        return {name: details for name, details in said.items() if details is not None}

    def reset(self) -> None:
        """Forget the samples, keep the reference."""
        self._waiting.clear()
        for metric in self.metrics.values():
            metric.reset()
