"""The input image, downsampled, as a further input at every resolution of the encoder."""

from torch import Tensor, nn

from langevin.networks.blocks.block import join
from langevin.networks.blocks.resample import FilterDown
from langevin.networks.initialization import fan_average


class ProgressiveInput(nn.Module):
    """One step of NCSN++'s residual pyramid (Song et al. 2021, Score-SDE, section 4.1 and appendix C).

    The input of the resolution above goes through a 3x3 convolution, is filtered down and is joined with the
    features, divided by the square root of 2; the result is also the input of the next resolution.

    It is not a `Block`, as it maps two feature maps.

    Args:
        in_channels: C_p, of the input above: the image's, or the width of that level.
        out_channels: C, of the features.
        resample: halves the resolution.
    """

    def __init__(self, in_channels: int, out_channels: int, resample: FilterDown) -> None:
        super().__init__()
        self.resample = resample
        # The filter's border is taken from the convolution's result instead of from zeros.
        self.conv = fan_average(nn.Conv2d(in_channels, out_channels, 3, padding=1 + resample.padding))

    def forward(self, x: Tensor, pyramid: Tensor) -> Tensor:
        """Join features (B, C, H, W) with the input above, (B, C_p, 2 H, 2 W), to (B, C, H, W)."""
        return join(x, self.resample(self.conv(pyramid), padded=True), rescale=True)
