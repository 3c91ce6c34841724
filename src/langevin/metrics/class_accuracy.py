"""Whether class-conditional samples show the requested class."""

import warnings

import numpy as np
import torch
from torch import Tensor

from langevin.errors import UserError
from langevin.metrics.base import Columns, Plan, SampleMetric

LONG = 20_000
"""References beyond which fitting takes minutes, and soon hours."""


class ClassAccuracy(SampleMetric):
    """Share of the samples whose class, predicted by a classifier of real images, is the requested one; in [0, 1].

    The classifier is scikit-learn's support vector machine (`SVC`: RBF kernel, ``C=10``, ``gamma="scale"``) on the
    pixels in [0, 1], fitted to the labelled reference: it shares nothing with the model under test. It suits small,
    simple images such as digits, of which it classifies 98 to 99% correctly; on natural images it is too weak to judge
    a model. Fitting takes seconds for some thousand references and grows with their square. Reported as
    ``class_accuracy``; read it beside the classifier's own accuracy on real images, which bounds it.
    """

    reports = ("class_accuracy",)
    needs = ("label",)
    higher_is_better = True

    count: Tensor
    correct: Tensor

    def check(self, plan: Plan) -> None:
        """Refuse a reference without images, or with fewer than two classes, see the base class."""
        plan.require_images("class_accuracy")
        number = len(plan.reference.require_samples("class_accuracy"))
        if len(np.unique(plan.reference.require_labels("class_accuracy"))) < 2:
            raise UserError("metrics.class_accuracy needs reference images of at least two classes, the data has one")
        if number > LONG:
            warnings.warn(
                f"metrics.class_accuracy fits a support vector machine to {number:,} reference images, which can take "
                "hours: time grows with the square of their number. It is meant for small images such as digits",
                stacklevel=2,
            )

    def begin(self, plan: Plan) -> None:
        """Add the counts and fit the classifier, see the base class."""
        from sklearn.svm import SVC

        super().begin(plan)
        self._add_sum("count", dtype=torch.int64)
        self._add_sum("correct", dtype=torch.int64)
        images = plan.reference.require_samples("class_accuracy")
        labels = plan.reference.require_labels("class_accuracy")
        self.classifier = SVC(C=10.0, kernel="rbf", gamma="scale").fit(_pixels(images), labels)

    def update(self, samples: Columns, cond: Columns, index: Tensor, target: Tensor | None = None) -> None:
        """Count the images whose predicted class is their label, see the base class."""
        named = self.classifier.predict(_pixels(samples["stored"].permute(0, 2, 3, 1).cpu().numpy()))
        self._accumulate(count=len(named), correct=int((named == cond["label"].cpu().numpy()).sum()))

    def compute(self) -> dict[str, Tensor]:
        """Return the share, see the base class."""
        self._require_all(self.count)
        return {"class_accuracy": self.correct.double() / self.count}


def _pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) / 255.0
