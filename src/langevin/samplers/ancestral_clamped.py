"""Ancestral sampling as tutorials do it."""

from torch import Tensor

from langevin.diffusion.draws import Draws
from langevin.samplers.ancestral import Ancestral
from langevin.samplers.sampler import Predictor


class ClampedAncestral(Ancestral):
    """Ancestral sampling that clamps the noisy image itself to [-1, 1] after each step; DDPM clamps the prediction.

    It removes part of the noise that the model was trained on, and most of it where noise grows far beyond 1 (`edm`,
    `ve`). Source: the tutorial "Diffusion models from scratch in PyTorch" (DeepFindr, 2022), whose samples it is to
    reproduce together with `thresholding=none`.

    Args:
        timestep_spacing: the times it visits.
        thresholding: keeps each predicted image in range; None: as it is predicted.
        steps: how many steps it takes; None for all of a discrete schedule.
    """

    def step(
        self, denoise: Predictor, x_t: Tensor, t: Tensor, s: Tensor, state: None, draws: Draws
    ) -> tuple[Tensor, None]:
        """See `Sampler`."""
        x, state = super().step(denoise, x_t, t, s, state, draws)
        return x.clamp(-1, 1), state
