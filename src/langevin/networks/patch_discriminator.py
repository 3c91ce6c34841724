"""The discriminator of latent diffusion's autoencoders."""

from typing import Annotated, Literal

from annotated_types import Ge
from torch import Tensor, nn

from langevin.errors import OptionError
from langevin.networks.blocks.block import normalization

SLOPE = 0.2
"""Of LeakyReLU below 0."""


class PatchDiscriminator(nn.Module):
    """Tells images from reconstructions, patch by patch: convolutions of 4x4 taps, each patch a logit.

    Source: Isola et al. 2017 (pix2pix), section 3.2.2, as in VQGAN and latent diffusion.

    Args:
        in_channels: C, of the images.
        image_size: their height and width.
        channels: width of the first convolution, a multiple of 4; it doubles with each further layer, up to eightfold.
        layers: convolutions of stride 2.
        norm: "group" (GroupNorm), under which an image's logits do not depend on the others; "batch" (BatchNorm), as
            published: each process normalises over its own images.

    Raises:
        OptionError: when the images are too small for so many layers.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: int,
        channels: Annotated[int, Ge(4)] = 64,
        layers: Annotated[int, Ge(1)] = 3,
        norm: Literal["group", "batch"] = "group",
    ) -> None:
        super().__init__()
        if channels % 4:
            raise OptionError("channels", f"is {channels}; allowed: a multiple of 4")
        size = image_size
        for _ in range(layers):
            size //= 2
        if size < 3:  # two convolutions of stride 1 follow, each of which takes a pixel
            text = f"is {layers}, for images of {3 * 2**layers} pixels a side or more, and these have {image_size}"
            raise OptionError("layers", f"{text}; allowed: fewer")
        parts: list[nn.Module] = [nn.Conv2d(in_channels, channels, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        before = channels
        for layer in range(1, layers + 1):
            width = channels * min(2**layer, 8)
            stride = 2 if layer < layers else 1
            # The normalization's own shift stands for the bias.
            parts.append(nn.Conv2d(before, width, 4, stride=stride, padding=1, bias=False))
            parts += [normalization(width) if norm == "group" else nn.BatchNorm2d(width), nn.LeakyReLU(SLOPE)]
            before = width
        parts.append(nn.Conv2d(before, 1, 4, padding=1))
        self.layers = nn.Sequential(*parts)
        for part in parts:
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, 0, 0.02)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
            elif isinstance(part, nn.GroupNorm | nn.BatchNorm2d):
                nn.init.normal_(part.weight, 1, 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """The logits (B, 1, h, w) of images (B, C, H, W) in [-1, 1]: above 0 for an image."""
        return self.layers(x)
