"""What keeps a predicted image in range."""

from abc import ABC, abstractmethod
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor


class Thresholding(ABC):
    """Changes each predicted image.

    Args:
        keep_eps: whether the predicted noise stays as it was, as in diffusers' DDIM by default; else it follows, so
            that image and noise make up x_t again, as in OpenAI's.
    """

    def __init__(self, keep_eps: bool) -> None:
        self.keep_eps = keep_eps

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """The images (B, C, H, W) that replace the predicted `x`."""


class Static(Thresholding):
    """Clamps to [-1, 1]. Source: DDPM (Ho et al. 2020), released code.

    Args:
        keep_eps: see `Thresholding`.
    """

    def __init__(self, keep_eps: bool = False) -> None:
        super().__init__(keep_eps)

    def __call__(self, x: Tensor) -> Tensor:
        """See `Thresholding`."""
        return x.clamp(-1, 1)


class Dynamic(Thresholding):
    """Clamps to [-s, s] and divides by s: s is a percentile of the image's own absolute values, and at least 1.

    Source: Imagen (Saharia et al. 2022), section 2.3.

    Args:
        percentile: which share of the values lies within s.
        limit: s is at most this.
        keep_eps: see `Thresholding`.
    """

    def __init__(
        self,
        percentile: Annotated[float, Gt(0), Le(1)] = 0.995,
        limit: Annotated[float, Ge(1)] | None = None,
        keep_eps: bool = False,
    ) -> None:
        super().__init__(keep_eps)
        self.percentile = percentile
        self.limit = limit

    def __call__(self, x: Tensor) -> Tensor:
        """See `Thresholding`."""
        # Image by image: older versions of torch take no more than 2^24 values at once.
        quantiles = [torch.quantile(values, self.percentile) for values in x.abs().flatten(1)]
        s = torch.stack(quantiles).clamp(min=1, max=self.limit)
        s = s.reshape(-1, *(1,) * (x.ndim - 1))
        return torch.minimum(torch.maximum(x, -s), s) / s
