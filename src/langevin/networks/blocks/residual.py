"""The residual block of all U-Nets here."""

from torch import Tensor, nn
from torch.nn import functional

from langevin.networks.blocks.block import NORM_EPSILON, Block, innermost, join, normalization
from langevin.networks.blocks.dropout import Dropout
from langevin.networks.blocks.resample import Filter
from langevin.networks.initialization import fan_average, zero


class ResidualBlock(Block):
    """Two 3x3 convolutions behind GroupNorm and SiLU, the embedding coming in between them (DDPM, appendix B).

    Starts as its shortcut alone, but for the rescaling: the last convolution is zero.

    Args:
        in_channels: C, see `normalization`.
        out_channels: C', see `normalization`; where it differs from C the shortcut is a 1x1 convolution.
        embedding_channels: size of the embedding; None for a block without one.
        dropout: probability in [0, 1) before the last convolution.
        norm_epsilon: see `normalization`.
        scale_shift: whether the embedding scales and shifts the second normalization's output (AdaGN: y_s GroupNorm(h)
            + y_b; Dhariwal & Nichol 2021, eq. 1, where y_s is 1 plus what the embedding gives); else it is added before
            that normalization.
        skip_rescale: whether the sum of branch and shortcut is divided by the square root of 2.
        resample: changes the resolution of both, in the branch before the first convolution (BigGAN; Brock et al. 2019,
            appendix B); None keeps it.
        resample_projection: whether the shortcut is a 1x1 convolution also where `resample` is given and C' = C.
        norm_groups: see `normalization`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_channels: int | None,
        dropout: float,
        norm_epsilon: float = NORM_EPSILON,
        scale_shift: bool = False,
        skip_rescale: bool = False,
        resample: Filter | None = None,
        resample_projection: bool = False,
        norm_groups: int | None = None,
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.skip_rescale = skip_rescale
        self.resample: nn.Module = nn.Identity() if resample is None else resample
        self.norm1 = normalization(in_channels, norm_epsilon, norm_groups)
        self.conv1 = fan_average(nn.Conv2d(in_channels, out_channels, 3, padding=1))
        self.embed: nn.Linear | None = None
        if embedding_channels is not None:
            self.embed = fan_average(nn.Linear(embedding_channels, (1 + scale_shift) * out_channels))
        self.norm2 = normalization(out_channels, norm_epsilon, norm_groups)
        self.dropout = Dropout(dropout)
        self.conv2 = zero(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels or (resample is not None and resample_projection):
            self.shortcut = fan_average(nn.Conv2d(in_channels, out_channels, 1))

    def forward(
        self, x: Tensor, embedding: Tensor | None = None, tokens: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Map features (B, C, H, W) under an embedding (B, D) to (B, C', H', W'); the tokens are not used."""
        h = self.conv1(innermost(self.resample(functional.silu(self.norm1(x)))))
        if self.embed is None:
            h = self.norm2(h)
        else:
            assert embedding is not None
            embedded = self.embed(functional.silu(embedding))[:, :, None, None]
            if self.scale_shift:
                scale, shift = embedded.chunk(2, dim=1)
                h = self.norm2(h) * (1 + scale) + shift
            else:
                h = self.norm2(h.add_(embedded))
        h = self.conv2(innermost(self.dropout(functional.silu(h))))
        return join(self.shortcut(self.resample(x)), h, self.skip_rescale)
