"""Score-SDE's predictor-corrector sampler."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from langevin.diffusion.draws import Draws
from langevin.diffusion.level import broadcast_to
from langevin.diffusion.reverse import transition
from langevin.diffusion.schedules.schedule import Schedule
from langevin.samplers.ancestral import Ancestral
from langevin.samplers.sampler import Predictor, Sampler
from langevin.samplers.thresholding import Thresholding
from langevin.samplers.timestep_spacing import TimestepSpacing, UniformSpacing


class PredictorCorrector(Sampler[None]):
    """At each time some steps of Langevin dynamics, which correct the marginal; then an ancestral step.

    A Langevin step is ``x_t + size score + sqrt(2 size) z`` with ``size = 2 a (snr |z| / |score|)^2``. The source has
    a = 1 where variance explodes and a = 1 - beta where it is preserved; both are ``alpha_{t|s}^2`` of the step that
    follows. The source takes the norms' mean over the batch; here each image has its own, so that it does not depend
    on the others. Langevin steps of this length leave a bias that shrinks with snr alone: the variance of Gaussian data
    comes out larger by snr^2, with 0.16 by 2.6%.

    Source: Score-SDE (Song et al. 2021), algorithms 4 and 5, in the order of the released code; the last thing done is
    a predictor's step, so that no noise is left.

    Args:
        timestep_spacing: the times it visits.
        thresholding: keeps each predicted image in range; None: as it is predicted.
        steps: how many steps it takes; None for all of a discrete schedule. The source takes 1000.
        corrector_steps: how many Langevin steps are taken at each time, each of one evaluation.
        snr: the ratio of a Langevin step's drift to its noise; the source has 0.16 for CIFAR-10.
    """

    def __init__(
        self,
        timestep_spacing: TimestepSpacing,
        thresholding: Thresholding | None = None,
        steps: Annotated[int, Ge(1)] | None = 200,
        corrector_steps: Annotated[int, Ge(0)] = 1,
        snr: Annotated[float, Gt(0)] = 0.16,
    ) -> None:
        super().__init__(timestep_spacing, thresholding, steps)
        self.predictor = Ancestral(timestep_spacing, thresholding, steps)
        self.corrector_steps = corrector_steps
        self.snr = snr

    def own_spacing(self, schedule: Schedule) -> TimestepSpacing:
        """See `Sampler`; the source's."""
        return UniformSpacing()

    def step(
        self, denoise: Predictor, x_t: Tensor, t: Tensor, s: Tensor, state: None, draws: Draws
    ) -> tuple[Tensor, None]:
        """See `Sampler`."""
        for _ in range(self.corrector_steps):
            x_t = self.correct(denoise, x_t, t, s, draws)
        return self.predictor.step(denoise, x_t, t, s, state, draws)

    def correct(self, denoise: Predictor, x_t: Tensor, t: Tensor, s: Tensor, draws: Draws) -> Tensor:
        """One step of Langevin dynamics at the time `t`, () as `s`, from which the next step goes to `s`."""
        eps, z = denoise(x_t, t).eps, draws.normal()
        size = 2 * (self.snr * norm(z) / norm(eps)).square()
        # A prediction without any noise, such as that of a network which starts from zero, gives no scale.
        size = torch.where(size.isfinite(), size, 0.0)
        # With score = -eps / sigma, the step's size is this times sigma^2, and sigma stands before both terms.
        size = broadcast_to(transition(denoise.schedule, s, t).alpha.square(), x_t) * size
        return x_t + broadcast_to(denoise.schedule(t).sigma, x_t) * (torch.sqrt(2 * size) * z - size * eps)


def norm(x: Tensor) -> Tensor:
    """The Euclidean norm of each image: (B, 1, 1, 1)."""
    return torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)), keepdim=True)
