"""Denoisers whose answers are known, and noise that is written down beforehand."""

import numpy as np
import torch
from helpers.draws import Given
from torch import Tensor, nn

from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.parameterization import Eps
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.variance import FixedSmall


class TinyNetwork(nn.Module):
    """A fixed random function of the image and of DDPM's index, in float64."""

    def __init__(self, extra: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(2 + extra, 2, 3, 3, generator=generator).double() / 3

    def forward(self, x, c_noise, cond=None):
        time = torch.sin(c_noise / 150).reshape(-1, 1, 1, 1)
        output = torch.tanh(nn.functional.conv2d(x, self.weight, padding=1) + time)
        output[:, : x.shape[1]] += 0.3 * x
        return output


class Written(Given):
    """Says the same float64 noise to whoever asks in the same order."""

    def __init__(self, shape=(2, 2, 4, 4), seed: int = 0) -> None:
        super().__init__(self)
        self.shape, self.calls = shape, 0
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self) -> Tensor:
        self.calls += 1
        return torch.randn(self.shape, generator=self._generator, dtype=torch.float64)


def denoiser(schedule, parameterization=None, variance=None, extra=0) -> Denoiser:
    return Denoiser(TinyNetwork(extra), GaussianProcess(schedule, parameterization or Eps(), variance or FixedSmall()))


def our_path(sampler, model, noise) -> list[Tensor]:
    """What the model is asked about, evaluation by evaluation, and the images in the end."""
    path = []
    path.append(sampler(model, noise, on_prediction=lambda x_t, t, prediction: path.append(x_t)))
    return path


def our_path_over_alpha(sampler, model, noise) -> list[Tensor]:
    """As `our_path`, of ``x_t / alpha``: the variable of EDM, k-diffusion and what diffusers has of it."""
    path = []
    path.append(
        sampler(
            model,
            noise,
            on_prediction=lambda x_t, t, prediction: path.append(x_t / model.schedule(t).alpha),
        )
    )
    return path


def sigma_path(scheduler, network, steps, x) -> list[Tensor]:
    """What a scheduler of diffusers with DDPM's betas makes of `x`, with the sigmas that it would have in float64."""
    scheduler.set_timesteps(steps)
    bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    exact = torch.from_numpy(np.append(np.sqrt((1 - bar) / bar), 0))
    sigmas = exact[(scheduler.sigmas.double()[:, None] - exact).abs().argmin(1)]
    torch.testing.assert_close(sigmas.float(), scheduler.sigmas, rtol=1e-4, atol=0)
    scheduler.sigmas = sigmas
    path = [x]
    for index in scheduler.timesteps:
        output = network(scheduler.scale_model_input(x, index), index.double().expand(len(x)))
        x = scheduler.step(output, index, x).prev_sample
        path.append(x)
    return path


def in_float64(scheduler):
    """Give a scheduler of diffusers the table it would have in float64."""
    config = scheduler.config
    steps = config.num_train_timesteps
    if config.beta_schedule == "linear":
        betas = np.linspace(config.beta_start, config.beta_end, steps)
    else:
        assert config.beta_schedule == "squaredcos_cap_v2"
        bar = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - bar[1:] / bar[:-1], 0.999)
    table = torch.from_numpy(np.cumprod(1 - betas))
    torch.testing.assert_close(table.float(), scheduler.alphas_cumprod, rtol=0, atol=1e-6)
    scheduler.alphas_cumprod = table
    scheduler.one = scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    if not config.get("set_alpha_to_one", True):
        scheduler.final_alpha_cumprod = table[0]
    return scheduler


def assert_same_path(ours: list[Tensor], theirs: list[Tensor], precision: float = 1e-9) -> None:
    assert len(ours) == len(theirs)
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a.dtype == b.dtype == torch.float64
        difference = (a - b).abs().max() / b.abs().max().clamp(min=1)
        assert difference < precision, f"step {step}: {difference}"
