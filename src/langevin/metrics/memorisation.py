"""Whether the samples are copies of training images."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from langevin.errors import UserError
from langevin.images import GridLabels, labelled_grid
from langevin.metrics.base import Columns, FeatureSetMetric, Plan
from langevin.metrics.gathered import Rows
from langevin.metrics.neighbours import Points


class Memorisation(FeatureSetMetric):
    """How many samples are copies of a training image, and the training images nearest to some of them.

    A sample is authentic if it lies further from the training image nearest to it, in feature space, than that one
    lies from the nearest other training image (Alaa et al. 2022, arXiv 2102.08921, section 3.3). The share of such
    samples, in [0, 1], is reported as ``authenticity@N`` on the official Inception weights, else as
    ``authenticity_<extractor>@N``: 0 for copies alone. What a model that only generalises would have depends on the
    data: measure held-out images as samples to know it. The reference must be exactly the images that the model was
    trained on.

    `figure` shows in each row a sample, the images nearest to it in feature space, then those nearest in pixel space,
    with their distances below them. `details` gives by ``features`` and by ``pixels`` (in [0, 1]) a list for each
    sample shown: the ``images``, by their place in the reference, and their Euclidean ``distances``.

    Args:
        shown: how many samples to show, at least 1; all, where there are fewer.
        neighbours: how many training images to show beside each, twice; at least 1 and at most as many as there are.
    """

    reports = ("authenticity@N", "authenticity_*@N")
    non_protocol_params = ("shown", "neighbours")
    higher_is_better = True

    shown_images: Rows

    def __init__(self, shown: Annotated[int, Ge(1)] = 10, neighbours: Annotated[int, Ge(1)] = 5) -> None:
        super().__init__()
        self.shown = shown
        self.neighbours = neighbours

    def check(self, plan: Plan) -> None:
        """Refuse fewer training images than `neighbours`, or than two, see the base class."""
        plan.require_images("memorisation")
        number, least = len(plan.reference.require_samples("memorisation")), max(2, self.neighbours)
        if number < least:
            raise UserError(
                f"the number of reference images={number} is too few for metrics.memorisation.neighbours="
                f"{self.neighbours}: use at least {least} images, or fewer neighbours (at least 1)"
            )

    def begin(self, plan: Plan) -> None:
        """Keep the reference's features and images, and make room for the samples', see the base class."""
        super().begin(plan)
        self.key = plan.key("authenticity", "authenticity")
        self.neighbourhoods = plan.reference.neighbourhoods("features")
        self.neighbourhoods.ask(nearest=True)
        self.reference_images = plan.reference.require_samples("memorisation")
        height, width, channels = self.reference_images.shape[1:]
        self.shown_images = Rows(channels, height, width, dtype=torch.uint8)

    def update(self, samples: Columns, cond: Columns, index: Tensor, target: Tensor | None = None) -> None:
        """Keep the features and the number of each image, and the images to show, see the base class."""
        super().update(samples, cond, index)
        is_shown = index < self.shown
        self.shown_images.update(samples["stored"][is_shown], index[is_shown])

    def compute(self) -> dict[str, Tensor]:
        """Return the share of authentic samples, see the base class."""
        shown_images: Tensor = self.shown_images.compute()
        samples, reference = self._sets()
        centre = reference.mean(0, dtype=torch.float64)
        training = Points(reference, centre)
        self._show(shown_images, Points(samples[: self.shown], centre), training)
        found = self.neighbourhoods.find(samples)
        assert found.distances is not None, "asked for in begin"
        assert found.to_others is not None
        return {self.key: (found.distances > found.to_others).double().mean()}

    def _show(self, shown_images: Tensor, samples: Points, training: Points) -> None:
        shape = shown_images.shape[1:]
        origin = torch.zeros(shape.numel(), dtype=torch.float64, device=shown_images.device)
        images = Points(self.reference_images, origin)
        found = {
            "features": samples.nearest(training, self.neighbours),
            "pixels": Points(shown_images.permute(0, 2, 3, 1), origin).nearest(images, self.neighbours),
        }
        scales = {"features": 1.0, "pixels": 255.0}
        self.details = {
            space: [
                {"images": indices, "distances": distances}
                for distances, indices in zip((found[space][0] / scale).tolist(), found[space][1].tolist(), strict=True)
            ]
            for space, scale in scales.items()
        }
        nearest = torch.cat([indices for _, indices in found.values()], dim=1).cpu()
        beside = torch.from_numpy(self.reference_images[nearest.numpy()]).permute(0, 1, 4, 2, 3)
        rows = torch.cat([shown_images.cpu()[:, None], beside], dim=1)
        distances = torch.cat([distances / scales[space] for space, (distances, _) in found.items()], dim=1)
        captions = [text for row in distances.tolist() for text in ("", *(f"{each:.3g}" for each in row))]
        said = "nearest by " if self.neighbours > 1 else ""  # a single column has no room for more
        heads = [("sample", 1), *((f"{said}{space}", self.neighbours) for space in found)]
        labels = GridLabels(heads, captions=captions)
        self.figure = labelled_grid(rows.flatten(0, 1), rows.shape[1], labels)
