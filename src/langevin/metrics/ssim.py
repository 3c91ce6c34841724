"""The structural similarity index."""

from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from langevin.errors import UserError
from langevin.metrics.base import Plan
from langevin.metrics.paired import PairedMetric

WINDOW = 11
"""The side of the window in pixels."""


class SSIM(PairedMetric):
    """Structural similarity index of each image and its target, mean over the images; higher is better.

    Wang et al. 2004 (IEEE Transactions on Image Processing 13), section III: luminance, contrast and structure within
    an 11 x 11 Gaussian window with a standard deviation of 1.5 pixels, K1 = 0.01, K2 = 0.03, of uint8 levels (L =
    255), in float64. As in torchmetrics, whose function this calls, the mean is over every pixel and channel, with the
    images mirrored at their borders; other programs leave out the border of five pixels, or compare grey images. 1 for
    exact copies alone, about 0 for unrelated images, at least -1. Reported as ``ssim``.
    """

    reports = ("ssim",)
    higher_is_better = True

    name = "ssim"

    def check(self, plan: Plan) -> None:
        """Refuse images that are smaller than the window, see the base class."""
        _, height, width = plan.require_pairs(self.name)
        if min(height, width) < WINDOW:
            raise UserError(
                f"metrics.ssim compares windows of {WINDOW} x {WINDOW} pixels, but these images are of {height} x "
                f"{width}: drop it, or take metrics=[psnr]"
            )

    def of_pairs(self, samples: Tensor, targets: Tensor) -> Tensor:
        """The indices, float64, see the base class."""
        pair = samples.double(), targets.double()
        _, index = structural_similarity_index_measure(
            *pair, sigma=1.5, data_range=255.0, k1=0.01, k2=0.03, reduction="none", return_full_image=True
        )
        # By ourselves, since which pixels torchmetrics takes the mean over has changed.
        return index.flatten(1).mean(1)
