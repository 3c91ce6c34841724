"""The Frechet distance within each class."""

from collections.abc import Mapping
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from torch import Tensor

from langevin.errors import UserError
from langevin.features.extractor import FeatureExtractor
from langevin.interrupt import stop_on_signal
from langevin.metrics.base import FeatureSetMetric
from langevin.metrics.fid import frechet_distance, rooted_rows
from langevin.metrics.gathered import Rows
from langevin.metrics.reference import Reference


class FrechetDistanceByClass(FeatureSetMetric):
    """FID of the samples of a requested class, against the reference's images of it; lower is better.

    The mean over the classes of the reference, each counting the same ("intra FID" of Miyato & Koyama 2018, arXiv
    1802.05637; "within-class FID" of Benny et al. 2020, arXiv 2004.12361): unlike FID it sees samples that look fine
    but show another class. Reported as ``fid_by_class@N`` on the official Inception weights, else as
    ``fd_by_class_<extractor>@N``, where N is the number of all samples. FID's bias is that of the far fewer images in a
    class: compare values of the same numbers of samples and of classes only.

    Args:
        min_samples: refuse to work with fewer samples or fewer reference images in any class than this, at least 2.
            None means the number of feature dimensions (2048 for Inception).
        each: whether to report each class too, as ``fid_class_<label>@N``, else ``fd_class_<label>_<extractor>@N``.
    """

    needs_labels = True
    non_protocol_params = ("min_samples", "each")
    higher_is_better = False

    labels: Rows

    def __init__(self, min_samples: Annotated[int, Ge(2)] | None = None, each: bool = False) -> None:
        super().__init__()
        self.min_samples = min_samples
        self.each = each

    def check(self, num_samples: int, reference: Reference, features: FeatureExtractor) -> None:
        """Refuse too few images, see the base class.

        Raises:
            UserError: when a class of the reference has too few images.
        """
        assert reference.labels is not None, "Evaluation.prepare() ensures labels"
        classes, numbers = np.unique(reference.labels, return_counts=True)
        least = self._least(features)
        if numbers.min() < least:
            rarest = numbers.argmin()
            raise UserError(_too_few(f"reference: class {classes[rarest]} has {numbers[rarest]} images", least))

    def check_labels(self, labels: NDArray[np.int64], reference: Reference, features: FeatureExtractor) -> None:
        """Refuse too few samples of a class, and classes that the reference does not have, see the base class.

        Raises:
            UserError: when there are any.
        """
        assert reference.labels is not None, "Evaluation.prepare() ensures labels"
        least = self._least(features)
        numbers = dict(zip(*np.unique(labels, return_counts=True), strict=True))
        classes = np.unique(reference.labels).tolist()
        if foreign := set(numbers).difference(classes):
            raise UserError(f"metrics.fid_by_class: no reference image is of class {min(foreign)}, but samples are")
        rarest = min(classes, key=lambda label: numbers.get(label, 0))
        if (number := numbers.get(rarest, 0)) < least:
            raise UserError(_too_few(f"class {rarest} has {number} of {len(labels)} samples", least))

    def begin(self, num_samples: int, features: FeatureExtractor) -> None:
        """Allocate the labels, see the base class."""
        super().begin(num_samples, features)
        self.key = f"{features.metric_name('fid_by_class', 'fd_by_class')}@{num_samples}"
        self.key_of_each = f"{features.metric_name('fid_class_LABEL', 'fd_class_LABEL')}@{num_samples}"
        self.labels = Rows(dtype=torch.int64)

    def set_reference(self, reference: Reference) -> None:
        """Keep the reference's features and labels, see the base class."""
        super().set_reference(reference)
        assert reference.labels is not None
        self.reference_labels = torch.from_numpy(reference.labels.astype(np.int64))

    def update(self, outputs: Mapping[str, Tensor], labels: Tensor | None, index: Tensor) -> None:
        """Keep the features, the labels and the number of each image, see the base class."""
        assert labels is not None, "Evaluation.add() ensures labels"
        super().update(outputs, labels, index)
        self.labels.update(labels, index)

    def compute(self) -> dict[str, Tensor]:
        """Return the mean over the classes, and each class if asked to, see the base class."""
        labels: Tensor = self.labels.compute()
        samples, reference = self._sets()
        values = {}
        for label in stop_on_signal(self.reference_labels.unique().tolist()):
            of_class = samples[(labels == label).to(samples.device)]
            real = reference[(self.reference_labels == label).to(reference.device)]
            values[label] = frechet_distance(rooted_rows(of_class), rooted_rows(real))
        mean = torch.stack(list(values.values())).mean()
        each = {self.key_of_each.replace("LABEL", str(label)): value for label, value in values.items()}
        return {self.key: mean, **(each if self.each else {})}

    def _least(self, features: FeatureExtractor) -> int:
        return features.sizes["features"] if self.min_samples is None else self.min_samples


def _too_few(what: str, least: int) -> str:
    return (
        f"{what}, too few for metrics.fid_by_class, which asks for {least} in each class: use more images, or set "
        "metrics.fid_by_class.min_samples lower (at least 2) and compare only values of the same numbers"
    )
