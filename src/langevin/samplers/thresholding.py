"""What keeps a predicted sample in range."""

from abc import ABC, abstractmethod
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from langevin.errors import UserError
from langevin.spec import DataSpec


class Thresholding(ABC):
    """Changes each predicted sample, of data whose numbers lie in [-1, 1].

    Args:
        keep_eps: whether the predicted noise stays as it was, as in diffusers' DDIM by default; else it follows, so
            that image and noise make up x_t again, as in OpenAI's.
    """

    def __init__(self, keep_eps: bool) -> None:
        self.keep_eps = keep_eps

    def check(self, spec: DataSpec) -> None:
        """Check that it is for such data.

        Args:
            spec: of what is diffused.

        Raises:
            UserError: when it is not.
        """
        if spec.levels is None:
            raise UserError("keeps samples in [-1, 1], and what is diffused here has no bounds; allowed: auto or none")

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """The samples (B, ...) that replace the predicted `x`."""


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


def auto(spec: DataSpec | None, keep_eps: bool = False) -> Static | None:
    """Clamping for data within [-1, 1], such as images; nothing for all other, such as latents.

    Args:
        spec: of what is diffused; None where it is not known.
        keep_eps: see `Thresholding`.
    """
    return None if spec is None or spec.levels is None else Static(keep_eps)


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
