"""Autoguidance."""

from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.diffusion.process import Prediction
from langevin.diffusion.schedules.schedule import Schedule
from langevin.errors import OptionError
from langevin.guidance.guidance import Guidance, require_same_images, require_same_process
from langevin.spec import DataSpec


class Autoguidance(Guidance):
    """Extrapolates from a weaker model's prediction through the model's own: ``w + scale (m - w)``.

    The weaker model is a smaller one, or the same earlier in its training; it must share the noise process, and the
    classes if it is conditional. Its parameterization may differ: what is extrapolated is x and eps.
    Source: Karras et al. 2024 (arXiv 2406.02507), equation 3.

    Args:
        load_denoiser: gives the model that a run or a checkpoint holds, and whether it is class-conditional.
        weaker: the weaker model's run folder, or a .ckpt file.
        scale: 1 is no guidance (and costs nothing more), 0 the weaker model, more extrapolates further from it.

    Raises:
        UserError: when there is no such model.
    """

    def __init__(
        self,
        load_denoiser: Callable[[str, str], tuple[Denoiser, DataSpec, bool]],
        weaker: str,
        scale: Annotated[float, Ge(0)] = 2.0,
    ) -> None:
        super().__init__()
        self.path = weaker
        self.weaker, self.spec, self.conditional = load_denoiser("weaker", weaker)
        self.scale = scale

    def check(self, schedule: Schedule | None, spec: DataSpec | None, conditional: bool) -> None:
        """See `Guidance`."""
        require_same_process("weaker", self.path, self.weaker.schedule, schedule)
        if self.conditional and not conditional:
            raise OptionError("weaker", f"is {self.path}; allowed: an unconditional model, as the one it guides")
        if spec is None:
            return
        require_same_images("weaker", self.path, self.spec, spec)
        if self.conditional and self.spec.num_classes != spec.num_classes:
            raise OptionError(
                "weaker",
                f"is {self.path}; allowed: one for the model's {spec.num_classes} classes; it has "
                f"{self.spec.num_classes}",
            )

    def require_same_encoding(self, denoiser: Denoiser) -> None:
        """See `Guidance`: of texts, which encoders turn into different numbers."""
        weaker, own = (getattr(each.network.condition, "encoding", None) for each in (self.weaker, denoiser))
        if weaker is not None and weaker != own:
            text = "one whose encoder of text has the model's own words, length and weights, or one without text"
            raise OptionError("weaker", f"is {self.path}; allowed: {text}")

    def forward(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Condition | None) -> Prediction:
        """See `Guidance`."""
        strong = denoiser(x_t, t, cond)
        if self.scale == 1:
            return strong
        weak = self.weaker(x_t, t, cond)
        x, eps = (torch.lerp(w, m, self.scale) for w, m in ((weak.x, strong.x), (weak.eps, strong.eps)))
        return strong._replace(x=x, eps=eps)
