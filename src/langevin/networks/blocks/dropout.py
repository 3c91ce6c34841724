"""Dropout that is cheaper on a CPU."""

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """As `nn.Dropout`; on a CPU, 16 random bits decide on each number, which takes a third of the time.

    The probability is then p rounded to 1/65536, and what is kept is scaled by just that, so that the mean stays.

    Args:
        p: probability in [0, 1) that a number is replaced by zero, in training.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, C, H, W), C a multiple of 4, to features of the same shape."""
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        kept = max(1, round((1 - self.p) * 2**16))  # of 65536 values
        batch, channels, *size = x.shape
        bits = torch.empty(batch, *size, channels // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        mask = (bits < kept - 2**15).to(x.dtype).mul_(2**16 / kept)
        return x * mask.movedim(-1, 1)
