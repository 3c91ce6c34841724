"""Whether class-conditional samples show the requested class."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from langevin.errors import UserError
from langevin.features.extractor import FeatureExtractor
from langevin.metrics.base import SampleMetric
from langevin.metrics.reference import Reference


class ClassAccuracy(SampleMetric):
    """Share of the samples whose class, predicted by a classifier of real images, is the requested one; in [0, 1].

    The classifier is scikit-learn's support vector machine (`SVC`: RBF kernel, ``C=10``, ``gamma="scale"``) on the
    pixels in [0, 1], fitted to the labelled reference: it shares nothing with the model under test. It suits small,
    simple images such as digits, of which it classifies 98 to 99% correctly; on natural images it is too weak to judge
    a model. Fitting takes seconds for some thousand references and grows with their square. Reported as
    ``class_accuracy``; read it beside the classifier's own accuracy on real images, which bounds it.
    """

    needs_images = True
    needs_labels = True
    higher_is_better = True

    count: Tensor
    correct: Tensor

    def check(self, num_samples: int, reference: Reference, features: FeatureExtractor) -> None:
        """Refuse a reference without different classes, see the base class.

        Raises:
            UserError: when the reference holds fewer than two classes.
        """
        assert reference.labels is not None, "Evaluation.prepare() ensures labels"
        if len(np.unique(reference.labels)) < 2:
            raise UserError("metrics.class_accuracy needs reference images of at least two classes, the data has one")

    def begin(self, num_samples: int, features: FeatureExtractor) -> None:
        """Add the counts, see the base class."""
        super().begin(num_samples, features)
        self._add_sum("count", dtype=torch.int64)
        self._add_sum("correct", dtype=torch.int64)

    def set_reference(self, reference: Reference) -> None:
        """Fit the classifier, see the base class."""
        from sklearn.svm import SVC

        assert reference.images is not None
        self.classifier = SVC(C=10.0, kernel="rbf", gamma="scale").fit(_pixels(reference.images), reference.labels)

    def update(self, outputs: Mapping[str, Tensor], labels: Tensor | None, index: Tensor) -> None:
        """Count the images whose predicted class is their label, see the base class."""
        assert labels is not None, "Evaluation.add() ensures labels"
        named = self.classifier.predict(_pixels(outputs["images"].permute(0, 2, 3, 1).cpu().numpy()))
        self._accumulate(count=len(named), correct=int((named == labels.cpu().numpy()).sum()))

    def compute(self) -> dict[str, Tensor]:
        """Return the share, see the base class."""
        self._require_all(self.count)
        return {"class_accuracy": self.correct.double() / self.count}


def _pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) / 255.0
