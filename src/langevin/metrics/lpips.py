"""LPIPS as a metric."""

from typing import Any, Literal

import torch
from torch import Tensor

from langevin.errors import OptionError, UserError
from langevin.features.extractor import BATCH, filled, full_precision
from langevin.images import from_uint8
from langevin.metrics.base import Plan
from langevin.metrics.paired import PairedMetric
from langevin.modalities.image import ImageModality
from langevin.perceptual.lpips import LPIPSDistance
from langevin.spec import DataSpec


class LPIPS(PairedMetric):
    """Learned perceptual distance of each image and its target, mean over the images; lower is better.

    See `LPIPSDistance`. At least 0, 0 for exact copies, rarely above 1. Reported on torchvision's own file as
    ``lpips_<net>``, on other weights as ``lpips_<net>-<digest>``: values of different networks do not compare. An
    image's value does not depend on the rest of its batch.

    Args:
        net: see `LPIPSDistance`; papers mostly report alex, or vgg.
        weights: see there.

    Raises:
        OptionError: when there are no such weights.
    """

    reports = ("lpips_*",)
    non_protocol_params = ("weights",)
    higher_is_better = False

    name = "lpips"

    def __init__(self, net: Literal["vgg", "alex", "squeeze"] = "alex", weights: str | None = None) -> None:
        super().__init__()
        self.distance = LPIPSDistance(net, weights)

    def record(self) -> dict[str, Any]:
        """The digest of the weights, see the base class."""
        return self.distance.record()

    def check(self, plan: Plan) -> None:
        """Refuse images that are too small for the network, see the base class."""
        spec = DataSpec(plan.require_pairs(self.name), None, ImageModality.path())
        try:
            self.distance.check(spec)
        except OptionError as error:
            raise UserError(f"metrics.lpips.{error}, or drop it") from error

    def begin(self, plan: Plan) -> None:
        """Name the value after the weights, see the base class."""
        super().begin(plan)
        digest = self.record()["perceptual"]["weights"]
        self.key = f"lpips_{self.distance.net}" + ("" if self.distance.official else f"-{digest[:8]}")

    def of_pairs(self, samples: Tensor, targets: Tensor) -> Tensor:
        """The distances, float32, see the base class."""
        with full_precision(samples.device):
            values = [
                self.distance(from_uint8(filled(x)), from_uint8(filled(y)))[: len(x)]
                for x, y in zip(samples.split(BATCH), targets.split(BATCH), strict=True)
            ]
        return torch.cat(values)
