"""The peak signal-to-noise ratio."""

import torch
from torch import Tensor

from langevin.metrics.paired import PairedMetric


class PSNR(PairedMetric):
    """Peak signal-to-noise ratio of each image against its target in dB, mean over the images; higher is better.

    ``10 log10(255^2 / MSE)`` of an image's uint8 levels, the MSE over all pixels and channels: the mean of the images'
    ratios, not the ratio of their mean error. Of an exact copy it would be infinite, and so would the mean. A copy
    counts as if a single number of it were off by one level: ``10 log10(255^2 C H W)``, which is the highest value of
    images of that size (83 dB for 3 x 32 x 32). Reported as ``psnr``.
    """

    reports = ("psnr",)
    higher_is_better = True

    name = "psnr"

    def of_pairs(self, samples: Tensor, targets: Tensor) -> Tensor:
        """The ratios, float64, see the base class."""
        # The sum of whole numbers is exact.
        squares = (samples.int() - targets.int()).square().flatten(1).sum(1)
        return 10 * torch.log10(255**2 * samples[0].numel() / squares.clamp(min=1).double())
