"""A loss whose scale at each noise level is learned."""

from collections.abc import Iterable
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.objective import Simple
from langevin.diffusion.process import Prediction
from langevin.diffusion.schedules.schedule import Schedule
from langevin.diffusion.time_sampler import TimeSampler
from langevin.diffusion.weighting import Weighting
from langevin.magnitudes import MPFourier, MPLayer

FARTHEST = 5.0
"""The greatest size of log(sigma / alpha) / 4 that u is given, which is infinite where no signal, or no noise, is."""


class Uncertainty(Simple):
    """The weighted squared error L divided by its own size at each noise level: ``L / exp(u) + u``, u being learned.

    The u that minimises its mean is the logarithm of the mean of L at each noise level. There, the error of every level
    counts as one divided by what it is on average. The weighting cancels: it decides only how far u has to go.

    u is a linear function, with weights of length 1, of random Fourier features of log(sigma / alpha) / 4: EDM's
    c_noise, whatever the parameterization gives to the network. It can bend within about a factor of e in noise, and
    reaches about -4 to 4 over a range of levels. Its weights are trained with the model's; sampling needs none of them.

    Source: EDM2 (Karras et al. 2024, arXiv 2312.02696), equations 21 and 22, and appendix B.2; after Kendall et al.
    2018 ("Multi-task learning using uncertainty").

    Args:
        time_sampler: where the times come from.
        weighting: how much each noise level counts in L.
        channels: how many Fourier features u has.
    """

    logs = ("loss", "mse", "weighted", "relative", "uncertainty")
    times_by = "relative"

    def __init__(self, time_sampler: TimeSampler, weighting: Weighting, channels: Annotated[int, Ge(1)] = 128) -> None:
        super().__init__(time_sampler, weighting)
        self.fourier = MPFourier(channels)
        self.linear = MPLayer(channels, 1)

    def parameters_by_role(self, model: Denoiser) -> dict[str, Iterable[nn.Parameter]]:
        """See `Objective`: u has a role of its own, so that the norm of the model's gradient is that alone."""
        trained = [weight for weight in model.network.parameters() if weight.requires_grad]
        return {"model": trained, "uncertainty": self.parameters()}

    def uncertainty(self, schedule: Schedule, t: Tensor) -> Tensor:
        """The function u at the times `t` (B,): float32 (B,), on the device of its weights."""
        weight = self.linear.weight
        level = (schedule(t).log_snr / -8).clamp(-FARTHEST, FARTHEST)
        with torch.autocast(weight.device.type, enabled=False):
            return self.linear(self.fourier(level.to(weight.device, torch.float32, non_blocking=True)))[:, 0]

    def errors(
        self, denoiser: Denoiser, prediction: Prediction, x: Tensor, eps: Tensor, t: Tensor
    ) -> dict[str, Tensor]:
        """See `Simple`; "weighted" is L, "relative" L / exp(u), and "uncertainty" u.

        In a validation "loss" is L too, which compares with that of `Simple`, and with itself at another step.
        """
        terms = super().errors(denoiser, prediction, x, eps, t)
        weighted = terms["loss"]
        u = self.uncertainty(denoiser.schedule, t).to(weighted.dtype)
        relative = weighted / u.exp()
        seen = {"weighted": weighted.detach(), "relative": relative.detach(), "uncertainty": u.detach()}
        return terms | {"loss": relative + u if self.training else weighted, **seen}
