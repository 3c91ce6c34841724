"""The interface of every guidance."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.diffusion.process import Prediction
from langevin.diffusion.schedules.schedule import Schedule
from langevin.errors import OptionError
from langevin.spec import DataSpec


class Guidance(nn.Module, ABC):
    """Steers a model's predictions. What it needs beside the model, such as a classifier, it holds itself.

    Attributes:
        num_classes: the number of classes of the labels it needs itself; None where it only passes labels to the model.
        moves_mean: whether its predictions carry a `Prediction.mean_gradient`, which few samplers support.
        differentiable: whether its predictions have a gradient by x_t.
        needs_unconditional: whether it also evaluates the model without labels, learnt by condition dropout.
    """

    num_classes: int | None = None
    moves_mean: bool = False
    differentiable: ClassVar[bool] = True
    needs_unconditional: bool = False

    @abstractmethod
    def forward(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Condition | None) -> Prediction:
        """The steered prediction of `denoiser`; the other arguments are those of `Denoiser.forward`."""

    @abstractmethod
    def check(self, schedule: Schedule | None, spec: DataSpec | None, conditional: bool) -> None:
        """Check that it is compatible with a model.

        Args:
            schedule: the model's; None while that is not known yet.
            spec: the spec of the model's data; None likewise.
            conditional: whether the model is class-conditional.

        Raises:
            UserError: when it does not.
        """

    def require_same_encoding(self, denoiser: Denoiser) -> None:
        """Check that a model reads the same columns of conditions as one that it holds itself.

        Raises:
            UserError: when it does not.
        """


class Guided:
    """A model under guidance: a `langevin.diffusion.denoiser.Denoise`.

    Args:
        denoiser: the model.
        guidance: what steers it.
    """

    def __init__(self, denoiser: Denoiser, guidance: Guidance) -> None:
        self.denoiser = denoiser
        self.guidance = guidance
        self.process = denoiser.process

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Prediction:
        """See `Denoiser.forward`."""
        return self.guidance(self.denoiser, x_t, t, cond)


def require_same_process(field: str, value: str, other: Schedule, schedule: Schedule | None) -> None:
    """Check that another model was trained on the same noise process as this one.

    Args:
        field: the option that the other was chosen by.
        value: its value.
        other: its schedule.
        schedule: this one's; None while that is not known yet.

    Raises:
        OptionError: when the two schedules differ.
    """
    if schedule is None:
        return
    same = (other.num_steps, other.t_min, other.t_max) == (schedule.num_steps, schedule.t_min, schedule.t_max)
    if same:
        t = torch.linspace(schedule.t_min, schedule.t_max, 101, dtype=torch.float64)
        pairs = zip(other(t), schedule(t), strict=True)
        same = all(torch.allclose(theirs, ours, rtol=1e-6, atol=1e-9) for theirs, ours in pairs)
    if not same:
        raise OptionError(
            field,
            f"is {value}: it was trained on another noise process than the model; allowed: one with the model's own "
            "schedule and rescalings, to the last parameter",
        )


def require_same_images(field: str, value: str, other: DataSpec, spec: DataSpec) -> None:
    """Check that another model is for images of this one's shape, or for latents of the same codec.

    Args:
        field: the option that the other was chosen by.
        value: its value.
        other: the spec of its data.
        spec: those of this one's.

    Raises:
        OptionError: when the two shapes differ, or the codecs.
    """
    if other.shape != spec.shape:
        raise OptionError(
            field,
            f"is {value}; allowed: one for images of (channels, height, width) {spec.shape}, as the model's are; it "
            f"is for {other.shape}",
        )
    if other.latents != spec.latents:
        theirs = "pixels" if other.latents is None else "latents of another codec"
        own = "pixels" if spec.latents is None else "latents of the model's codec.run and codec.scaling"
        raise OptionError(field, f"is {value}, a model of {theirs}; allowed: one of {own}")
