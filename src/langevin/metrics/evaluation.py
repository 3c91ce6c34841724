"""The one evaluation: used by the training callback and by evaluate.py alike."""

from collections.abc import Mapping
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist
from tqdm import tqdm

from langevin.errors import UserError
from langevin.metrics.base import SampleMetric
from langevin.metrics.features import FeatureExtractor


class Evaluation:
    """Some metrics over one extractor: each image passes through it once, for all of them.

    In this order: `prepare` and `add_reference` once, then any number of rounds of `add` (each process with its share
    of the samples, possibly none), `compute` and `reset`. The values are the same for any number of processes and any
    batch size. It is no `nn.Module`, so that held by a LightningModule its 95 MB of weights reach no checkpoint.

    Args:
        features: the extractor; its weights are looked for only if a metric needs them.
        metrics: the metrics by their names in the config; the reported names are the metrics' own.
    """

    def __init__(self, features: FeatureExtractor, metrics: Mapping[str, SampleMetric]) -> None:
        self.features = features
        self.metrics = dict(metrics)
        self.device = torch.device("cpu")

    def prepare(
        self,
        num_samples: int,
        reference_images: np.ndarray,
        reference_labels: np.ndarray | None,
        conditional: bool = True,
    ) -> None:
        """Find every mistake, then load the weights and fit what needs fitting: before anything is trained.

        Args:
            num_samples: how many images each round generates, over all processes.
            reference_images: uint8 (N, H, W, C), the whole reference, the same on every process; may be a memory map.
            reference_labels: integers (N,), or None where the reference has no classes.
            conditional: whether the samples will come with the class that they were asked for.

        Raises:
            UserError: when a metric cannot be computed so, or there are no weights.
        """
        if num_samples < 1:
            raise UserError(f"num_samples={num_samples}: must be at least 1")
        for name, metric in self.metrics.items():
            metric.check(num_samples, len(reference_images), self.features)
            if metric.needs_labels and reference_labels is None:
                raise UserError(f"metrics.{name} needs class labels, the data has none: drop it or use labelled data")
            if metric.needs_labels and not conditional:
                raise UserError(f"metrics.{name} needs a class-conditional model, this one is not: drop it")
        if any(metric.needs_features for metric in self.metrics.values()):
            channels = reference_images.shape[3]
            if channels not in (1, 3):
                needing = ", ".join(name for name, metric in self.metrics.items() if metric.needs_features)
                raise UserError(f"images of {channels} channels: the metrics {needing} take images of 1 or 3 channels")
            self.features.prepare()
        for metric in self.metrics.values():
            metric.begin(num_samples, self.features)
            metric.fit(reference_images, reference_labels)
        self._reference = reference_images, reference_labels
        self.to(self.device)

    def to(self, device: torch.device | str) -> Self:
        """Move the extractor and the metrics, at any time; `device` must know float64."""
        self.device = torch.device(device)
        self.features.to(self.device)
        for metric in self.metrics.values():
            metric.to(self.device)
        return self

    def add_reference(self, batch_size: int) -> None:
        """Count in the reference, each process its share of the batches; nothing to do if no metric looks at it.

        Args:
            batch_size: images passed through the extractor at once.
        """
        metrics = [metric for metric in self.metrics.values() if metric.needs_reference]
        if not metrics:
            return
        images, labels = self._reference
        rank, world = (dist.get_rank(), dist.get_world_size()) if _distributed() else (0, 1)
        starts = range(rank * batch_size, len(images), world * batch_size)
        for start in tqdm(starts, desc="Reference images", unit="batch", disable=rank != 0):
            part = slice(start, start + batch_size)
            # Copied, because torch must not share memory with a read-only memory map.
            batch = torch.from_numpy(np.array(images[part])).permute(0, 3, 1, 2)
            index = torch.arange(start, start + len(batch))
            classes = None if labels is None else torch.from_numpy(np.array(labels[part]))
            self._update(metrics, batch, classes, index, real=True)

    def add(self, images: Tensor, labels: Tensor | None, index: Tensor) -> None:
        """Count in samples.

        Args:
            images: uint8 (B, C, H, W), of the reference's shape.
            labels: the class that each was asked to show, integers (B,), or None where the model knows no classes.
            index: which of the `num_samples` each one is, integers (B,): each in [0, num_samples) once over all
                batches and processes of a round.

        Raises:
            UserError: when the samples and the reference differ in shape, or a metric needs labels and there are none.
        """
        height, width, channels = self._reference[0].shape[1:]
        shape, expected = tuple(images.shape[1:]), (channels, height, width)
        if shape != expected:
            raise UserError(
                f"samples of (channels, height, width) = {shape} cannot be compared with reference images of "
                f"{expected}: use the data that the model was trained on"
            )
        if labels is None and any(metric.needs_labels for metric in self.metrics.values()):
            needing = ", ".join(name for name, metric in self.metrics.items() if metric.needs_labels)
            raise UserError(f"metrics {needing}: the samples have no class labels: drop them or condition the samples")
        self._update(list(self.metrics.values()), images, labels, index, real=False)

    def compute(self) -> dict[str, float]:
        """Return all values by name, the same on every process; every process must call it.

        Raises:
            RuntimeError: when the samples added since the last `reset`, over all processes, are not `num_samples`.
        """
        values: dict[str, float] = {}
        for metric in self.metrics.values():
            values |= {name: float(value) for name, value in metric.compute().items()}
        return values

    def reset(self) -> None:
        """Forget the samples, keep the reference."""
        for metric in self.metrics.values():
            metric.reset()

    def _update(
        self, metrics: list[SampleMetric], images: Tensor, labels: Tensor | None, index: Tensor, real: bool
    ) -> None:
        images, index = images.to(self.device), index.to(self.device)
        outputs = {"images": images}
        if any(metric.needs_features for metric in metrics):
            outputs |= self.features(images)
        for metric in metrics:
            metric.update(outputs, labels, index, real)


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
