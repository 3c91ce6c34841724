"""Layers that keep the magnitude (the root mean square) of features at 1, by weights of magnitude 1.

Source: EDM2 (Karras et al. 2024, arXiv 2312.02696), sections 2.2 and 2.3, and appendix B.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-4
"""Added to a magnitude before it divides."""


def unit_magnitude(x: Tensor, dim: int | None = None) -> Tensor:
    """Divide by the magnitude (EDM2, equation 47), plus `EPSILON`; it is computed in float32 at least.

    Args:
        x: of two dimensions or more.
        dim: over which the magnitude is taken; None: over all but the first, so that each row has its own.

    Returns:
        a tensor of the shape and type of `x`.
    """
    over = list(range(1, x.ndim)) if dim is None else [dim]
    precise = x if x.dtype == torch.float64 else x.float()
    norm = torch.linalg.vector_norm(precise, dim=over, keepdim=True)
    magnitude = EPSILON + norm / math.sqrt(math.prod([x.shape[each] for each in over]))
    return (precise / magnitude).to(x.dtype)


class MPLayer(nn.Module):
    """A linear layer, or convolution, without bias that maps features of magnitude 1 to such, if uncorrelated.

    Every output's weights count by their direction alone (EDM2, equation 47): they are divided by their magnitude
    wherever the layer is evaluated. In training they are also set to magnitude 1 before every step, see
    `force_magnitudes`, so that the learning rate alone decides how fast they turn.

    Args:
        in_channels: C, of the features.
        out_channels: C', of the result.
        kernel: the odd side of a convolution's kernel; None for a linear layer.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int | None = None) -> None:
        super().__init__()
        size = () if kernel is None else (kernel, kernel)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, *size))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """Map features (B, C), or (B, C, H, W) for a convolution, to C' channels, times a gain () or (1,)."""
        weight = unit_magnitude(self.weight) * (gain / math.sqrt(math.prod(self.weight.shape[1:])))
        if weight.ndim == 2:
            return functional.linear(x, weight.to(x.dtype))
        return functional.conv2d(x, weight.to(x.dtype), padding=weight.shape[-1] // 2)


class MPFourier(nn.Module):
    """Random features of a number, of magnitude 1: ``sqrt(2) cos(2 pi (f c + phase))`` (EDM2, equation 75).

    Args:
        channels: how many; their frequencies f are standard normal, their phases uniform.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        # On the CPU: on the device "meta", where configs are checked, this imports torch's compiler.
        self.register_buffer("frequencies", 2 * math.pi * torch.randn(channels, device="cpu"))
        self.register_buffer("phases", 2 * math.pi * torch.rand(channels, device="cpu"))

    def forward(self, c_noise: Tensor) -> Tensor:
        """Map numbers (B,) to features (B, channels), float32."""
        angles = c_noise.float()[:, None] * self.frequencies.float() + self.phases.float()
        return math.sqrt(2) * angles.cos()


@torch.no_grad()
def force_magnitudes(layers: Iterable[MPLayer]) -> None:
    """Set the weights of every output to magnitude 1, but those that are frozen (EDM2, equation 66).

    What the layers compute stays the same. Weights may be sharded by their outputs: each process sets its own.
    """
    for layer in layers:
        if layer.weight.requires_grad:
            layer.weight.copy_(unit_magnitude(layer.weight))


def mp_layers(*modules: nn.Module) -> list[MPLayer]:
    """All such layers of some modules."""
    return [layer for module in modules for layer in module.modules() if isinstance(layer, MPLayer)]
