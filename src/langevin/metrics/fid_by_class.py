"""The Frechet distance within each class."""

from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from langevin.errors import UserError
from langevin.interrupt import stop_on_signal
from langevin.metrics.base import Columns, FeatureSetMetric, Plan
from langevin.metrics.fid import frechet_distance, rooted_rows
from langevin.metrics.gathered import Rows


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

    reports = ("fid_by_class@N", "fd_by_class_*@N", "fid_class_*@N", "fd_class_*@N")
    needs = ("label",)
    non_protocol_params = ("min_samples", "each")
    higher_is_better = False

    labels: Rows

    def __init__(self, min_samples: Annotated[int, Ge(2)] | None = None, each: bool = False) -> None:
        super().__init__()
        self.min_samples = min_samples
        self.each = each

    def check(self, plan: Plan) -> None:
        """Refuse too few images of a class, and samples of classes that the reference lacks, see the base class."""
        least = plan.features.sizes["features"] if self.min_samples is None else self.min_samples
        of_reference, of_samples = (
            dict(zip(*np.unique(labels, return_counts=True), strict=True))
            for labels in (plan.reference.require_labels("fid_by_class"), plan.cond["label"].numpy())
        )
        rarest = min(of_reference, key=lambda label: of_reference[label])
        if (number := of_reference[rarest]) < least:
            raise UserError(_too_few(f"reference: class {rarest} has {number} images", least))
        if foreign := of_samples.keys() - of_reference.keys():
            raise UserError(f"metrics.fid_by_class: no reference image is of class {min(foreign)}, but samples are")
        rarest = min(of_reference, key=lambda label: of_samples.get(label, 0))
        if (number := of_samples.get(rarest, 0)) < least:
            raise UserError(_too_few(f"class {rarest} has {number} of {plan.num_samples} samples", least))

    def begin(self, plan: Plan) -> None:
        """Allocate the labels and keep the reference's, see the base class."""
        super().begin(plan)
        self.key = plan.key("fid_by_class", "fd_by_class")
        self.key_of_each = plan.key("fid_class_LABEL", "fd_class_LABEL")
        self.labels = Rows(dtype=torch.int64)
        labels = plan.reference.require_labels("fid_by_class")
        self.reference_labels = torch.from_numpy(labels.astype(np.int64))

    def update(self, samples: Columns, cond: Columns, index: Tensor, target: Tensor | None = None) -> None:
        """Keep the features, the labels and the number of each image, see the base class."""
        super().update(samples, cond, index)
        self.labels.update(cond["label"], index)

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


def _too_few(what: str, least: int) -> str:
    return (
        f"{what}, too few for metrics.fid_by_class, which asks for {least} in each class: use more images, or set "
        "metrics.fid_by_class.min_samples lower (at least 2) and compare only values of the same numbers"
    )
