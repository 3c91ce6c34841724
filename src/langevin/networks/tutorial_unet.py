"""The plain U-Net of the tutorial "Diffusion models from scratch in PyTorch" (DeepFindr, 2022)."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional

from langevin.conditions.condition import Condition
from langevin.errors import refuse
from langevin.networks.embeddings import sinusoidal_embedding
from langevin.networks.network import Network
from langevin.taps import Tap, numbered


class TutorialUNet(Network):
    """Convolutions with ReLU and batch normalization, down and up again: no residuals and no attention.

    In training, batch normalization makes an image depend on the rest of the batch; in evaluation mode, in which
    samples are drawn here, it does not. (The tutorial's code never leaves the training mode.)

    Args:
        in_channels: channels of the input image.
        out_channels: channels of the output: more than `in_channels` where a variance is learned.
        image_size: height and width of the image, divisible by 2 ** (number of widths - 1).
        condition: builds the condition's embedding, called with `dim=`; None for an unconditional network.
        widths: channels before the first block of the encoder, and after each; the decoder mirrors them.
        time_channels: size of the embedding of the noise level, even.

    Raises:
        OptionError: when some of these are incompatible, or do not fit the image size.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        image_size: int,
        condition: Callable[..., Condition] | None,
        widths: list[Annotated[int, Ge(1)]],
        time_channels: Annotated[int, Ge(4)],
    ) -> None:
        super().__init__()
        wrong, factor = [], 2 ** (len(widths) - 1)
        if len(widths) < 2:
            wrong.append(("widths", f"is {list(widths)}; allowed: at least two numbers of channels"))
        elif image_size % factor:
            text = f"has {len(widths)} widths, and image_size={image_size} is not divisible by {factor}"
            wrong.append(("widths", f"{text}; allowed: fewer widths, or another image size"))
        if time_channels % 2:
            text = f"is {time_channels}; allowed: an even number, half sines and half cosines"
            wrong.append(("time_channels", text))
        refuse(wrong)
        self.size_step = factor
        self.time = nn.Linear(time_channels, time_channels)
        self.condition = None if condition is None else condition(dim=time_channels)
        self.first = nn.Conv2d(in_channels + self.concat_channels, widths[0], 3, padding=1)
        steps = list(pairwise(widths))
        self.down = nn.ModuleList(
            TutorialBlock(upper, lower, time_channels, nn.Conv2d(lower, lower, 4, stride=2, padding=1))
            for upper, lower in steps
        )
        self.up = nn.ModuleList(
            # The input from below is joined with the encoder's output of the same resolution and width.
            TutorialBlock(2 * lower, upper, time_channels, nn.ConvTranspose2d(upper, upper, 4, stride=2, padding=1))
            for upper, lower in reversed(steps)
        )
        self.default_tap = f"down_{len(steps)}"
        self.tap_channels = [lower for _, lower in steps], [upper for upper, _ in reversed(steps)]
        self.last = nn.Conv2d(widths[0], out_channels, 1)
        # Convolutions are faster with the channels innermost, on the CPU and on the tensor cores of a GPU.
        self.to(memory_format=torch.channels_last)

    @property
    def taps(self) -> Mapping[str, Tap]:
        """See `Network`: the blocks of the encoder (down_1, ...) and of the decoder (up_1, ...)."""
        down, up = self.tap_channels
        return numbered("down", self.down, down) | numbered("up", self.up, up)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Mapping[str, Tensor] | None = None) -> Tensor:
        """Evaluate the network; see `Network.forward`."""
        waves = sinusoidal_embedding(c_noise, self.time.in_features).to(self.time.weight.dtype)
        embedding = functional.relu(self.time(waves))
        x, context = self.conditioned(x, cond)
        if context.vector is not None:
            embedding = embedding + context.vector

        x = self.first(x.contiguous(memory_format=torch.channels_last))
        skips = []
        for block in self.down:
            x = block(x, embedding)
            skips.append(x)
        for block in self.up:
            x = block(torch.cat((x, skips.pop()), dim=1), embedding)
        return self.last(x).contiguous()


class TutorialBlock(nn.Module):
    """Two 3x3 convolutions, each with ReLU and then batch normalization, the embedding added between them.

    Args:
        in_channels: C.
        out_channels: C'.
        embedding_channels: size of the embedding.
        resample: comes last and changes the resolution, from C' to C' channels.
    """

    def __init__(self, in_channels: int, out_channels: int, embedding_channels: int, resample: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.embed = nn.Linear(embedding_channels, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.resample = resample

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map features (B, C, H, W) under an embedding (B, D) to features (B, C', H', W')."""
        x = self.norm1(functional.relu(self.conv1(x)))
        x = x + functional.relu(self.embed(embedding))[:, :, None, None]
        x = self.norm2(functional.relu(self.conv2(x)))
        return self.resample(x)
