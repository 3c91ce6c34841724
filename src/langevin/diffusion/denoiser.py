"""A network with the meaning of its output."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from langevin.diffusion.draws import Draws
from langevin.diffusion.parameterization import Parameterization
from langevin.diffusion.process import GaussianProcess, Prediction
from langevin.diffusion.schedules.schedule import Schedule
from langevin.diffusion.variance import Variance

Condition = Mapping[str, Tensor]


class Denoise(Protocol):
    """Anything that can be sampled from: a `Denoiser`, or guidance around one."""

    process: GaussianProcess

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Prediction:
        """See `Denoiser.forward`."""


class Denoiser(nn.Module):
    """A network with the meaning of its output: the only caller of a network.

    Args:
        network: maps (x, c_noise, cond) to a tensor of ``process.output_channels(C)`` channels.
        process: what noise is, and what the network's output means.

    Raises:
        UserError: when the parameterization does not suit the schedule.
    """

    def __init__(self, network: nn.Module, process: GaussianProcess) -> None:
        super().__init__()
        process.check()
        self.network = network
        self.process = process

    @property
    def schedule(self) -> Schedule:
        """How noise grows with time."""
        return self.process.schedule

    @property
    def parameterization(self) -> Parameterization:
        """What the network's output means."""
        return self.process.parameterization

    @property
    def variance(self) -> Variance:
        """The variance of a reverse step."""
        return self.process.variance

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Prediction:
        """Predict the sample and the noise in `x_t`.

        Args:
            x_t: noisy samples (B, ...).
            t: times in (0, t_max], float64 on the CPU, of shape () or (B,).
            cond: what the network is conditioned on, such as {"label": int64 (B,)}.
        """
        return self.process.predict(self.network(*self.process.present(x_t, t), cond), x_t, t)

    def with_network(self, network: nn.Module) -> "Denoiser":
        """The same model with another network, such as one with EMA weights."""
        return Denoiser(network, self.process)

    def condition(self, batch: Condition) -> Condition | None:
        """What the network is conditioned on, of a batch's entries; None for an unconditional network."""
        embedding: Any = getattr(self.network, "condition", None)
        if embedding is None:
            return None
        needed = embedding.inputs - ((embedding.transformed | embedding.optional) - batch.keys())
        return {name: batch[name] for name in sorted(needed)}

    def transform(self, x: Tensor, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """Clean samples x (B, C, *size) as the network's condition transforms them in training, and how it did.

        Args:
            x: as a model's input, before anything is derived of them.
            draws: their random numbers, for this alone.
        """
        embedding: Any = getattr(self.network, "condition", None)
        return (x, {}) if embedding is None else embedding.transform(x, draws)

    def derive(self, x: Tensor, draws: Draws, sampling: bool = False) -> dict[str, Tensor]:
        """The columns of clean samples x (B, C, *size) that the network's condition computes, see `Condition.derive`.

        Args:
            x: as a model's input, before a codec encodes them.
            draws: their random numbers, for this alone, such as `conditioning_draws`.
            sampling: whether they are for sampling and likelihoods, not for a loss.
        """
        embedding: Any = getattr(self.network, "condition", None)
        return {} if embedding is None else embedding.derive(x, draws, sampling)

    def finish(self, x: Tensor, cond: Condition) -> Tensor:
        """Finished samples x (B, C, *size) with what their condition says of them exactly, see `Condition.finish`."""
        embedding: Any = getattr(self.network, "condition", None)
        return x if embedding is None else embedding.finish(x, cond)

    def null_condition(self, cond: Condition) -> Condition:
        """The null condition, of the same batch size: what guidance compares with."""
        network: Any = self.network
        return network.null_condition(cond)

    def drop(self, cond: Condition, draws: Draws) -> Condition:
        """`cond` after condition dropout, for training."""
        network: Any = self.network
        return network.drop(cond, draws.uniform)
