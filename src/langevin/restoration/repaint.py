"""RePaint."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from langevin.diffusion.denoiser import Denoise
from langevin.diffusion.draws import Draws
from langevin.restoration.ilvr import Replacement
from langevin.restoration.restoration import Measurement, Restoration
from langevin.restoration.walk import Walk


class RePaint(Restoration):
    """Replaces after each step what is known of the samples, as ILVR does, and takes parts of the way several times.

    Going back up, by the forward process, gives the unknown part the time to agree with the known one. Steps: about
    ``steps * jump_repeats``. The source's algorithm 1 lacks a square root in line 5, which its code has; its code does
    not put the known part in at the end, as is done here. Source: RePaint (Lugmayr et al. 2022, arXiv 2201.09865),
    section 4.2 and figure 9.

    Args:
        jump_length: by how many steps it goes back; 10 in the source.
        jump_repeats: how often each part of so many steps is gone through; 10 in the source, with 250 steps; 1: once.
    """

    is_exact = True
    walks = True
    takes_noise = False

    def __init__(self, jump_length: Annotated[int, Ge(1)] = 10, jump_repeats: Annotated[int, Ge(1)] = 10) -> None:
        self.jump_length = jump_length
        self.jump_repeats = jump_repeats

    def visited(self, times: Tensor) -> Tensor:
        """See `Restoration`; every `jump_length` steps, counted from one step before the data, as in the source."""
        left = len(times) - 1  # steps to the data
        repeats = dict.fromkeys(range(1, left - self.jump_length + 1, self.jump_length), self.jump_repeats - 1)
        visited = [times[0]]
        while left > 0:
            left -= 1
            if repeats.get(left, 0) > 0:
                repeats[left] -= 1
                visited.append(times[-1 - left])
                left += self.jump_length
            visited.append(times[-1 - left])
        return torch.stack(visited)

    def __call__(
        self, denoise: Denoise, measurement: Measurement, times: Tensor, draws: Draws
    ) -> tuple[Denoise, Walk | None]:
        """See `Restoration`."""
        return denoise, Replacement(self, denoise.process, measurement, draws)
