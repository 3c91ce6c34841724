"""Parts as a user adds them: a class each, and a YAML in conf. Nothing of them is known to src."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional

from langevin.conditions.condition import Condition, Context
from langevin.data.digits import Digits
from langevin.data.source import ImageSet
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.level import Level, broadcast_to
from langevin.diffusion.objective import Denoising, Simple
from langevin.diffusion.process import Noised, Prediction
from langevin.diffusion.schedules.schedule import SMALLEST_TIME, VariancePreserving
from langevin.diffusion.time_sampler import TimeSampler
from langevin.diffusion.weighting import Weighting


class Sine(VariancePreserving):
    """``sigma = sin(pi t / 2)``, in continuous time."""

    t_max, t_min, num_steps = 1 - 1e-3, SMALLEST_TIME, None

    def __call__(self, t: Tensor) -> Level:
        return Level(torch.cos(math.pi / 2 * t), torch.sin(math.pi / 2 * t))

    def rate(self, t: Tensor) -> Level:
        return Level(-math.pi / 2 * torch.sin(math.pi / 2 * t), math.pi / 2 * torch.cos(math.pi / 2 * t))

    def time_of(self, ratio: Tensor) -> Tensor:
        return (2 / math.pi * torch.atan(ratio)).clamp(0, self.t_max)


class LogCosh(Simple):
    """``log cosh`` of the weighted error."""

    def penalty(self, error: Tensor, factor: Tensor) -> Tensor:
        weighted = factor * error
        return (weighted.abs() + functional.softplus(-2 * weighted.abs()) - math.log(2)).flatten(1).mean(1)


class CaptionedDigits(Digits):
    """The digits with a caption of two token ids each, and a smaller copy of each image."""

    columns = frozenset({"label", "caption", "low_res"})

    def fingerprint(self, split: str) -> str:
        return super().fingerprint(split) + " with captions"

    def load(self, split: str) -> ImageSet:
        images = super().load(split)
        assert images.labels is not None
        caption = np.stack([images.labels, images.labels % 2 + 10], axis=1)
        array = images.lazy_images.array.astype(np.float32) / 127.5 - 1
        low_res = array.reshape(len(array), 1, 4, 2, 4, 2).mean((3, 5))
        return replace(images, columns={"caption": caption, "low_res": low_res})


class Caption(Condition):
    """An embedding for each token."""

    inputs = frozenset({"caption"})

    def __init__(self, words: Annotated[int, Ge(1)], dropout: float, dim: int) -> None:
        super().__init__()
        self.dropout = dropout
        self.table = nn.Embedding(words + 1, dim)

    def forward(self, cond: Mapping[str, Tensor] | None, batch: int) -> Context:
        nothing = torch.full((batch, 1), -1, device=self.table.weight.device)
        ids = nothing if cond is None else cond["caption"]
        tokens = self.table(ids.masked_fill(ids < 0, self.table.num_embeddings - 1))
        return Context(vector=tokens.mean(1), tokens=tokens)

    def null(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {**cond, "caption": torch.full_like(cond["caption"], -1)}


class LowRes(Condition):
    """A smaller image, enlarged beside x."""

    inputs = frozenset({"low_res"})
    concat_channels = 1

    def __init__(self, scale: Annotated[int, Ge(2)]) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, cond: Mapping[str, Tensor] | None, batch: int) -> Context:
        assert cond is not None
        return Context(concat=functional.interpolate(cond["low_res"], scale_factor=self.scale))

    def null(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(cond)


class Distillation(Denoising):
    """The squared distance to a trained model's prediction, whose weights are not trained and not saved."""

    def __init__(
        self,
        time_sampler: TimeSampler,
        load_denoiser: Callable[[str, str], tuple[Denoiser, object, bool]],
        teacher: str,
    ) -> None:
        super().__init__(time_sampler)
        self.teacher = (load_denoiser("teacher", teacher)[0],)  # in a tuple it is no part of this module

    def terms(self, model: Denoiser, x: Tensor, noised: Noised, cond: object, t: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            target = self.teacher[0].to(x.device)(noised.x_t, t)
        return {"loss": (model(noised.x_t, t).x - target.x).square().flatten(1).mean(1)}


class Uncertain(Simple):
    """A weight learned for each noise level, ``exp(-u) loss + u``: two roles, the network and u."""

    def __init__(self, time_sampler: TimeSampler, weighting: Weighting, width: Annotated[float, Gt(0)]) -> None:
        super().__init__(time_sampler, weighting)
        self.u = nn.Linear(1, 1)
        self.width = width

    def errors(self, model: Denoiser, prediction: Prediction, x: Tensor, eps: Tensor, t: Tensor) -> dict[str, Tensor]:
        terms = super().errors(model, prediction, x, eps, t)
        u = self.u(broadcast_to(t / self.width, x).reshape(-1, 1))[:, 0]
        return terms | {"loss": terms["loss"] * torch.exp(-u) + u, "uncertainty": u.detach()}

    def parameters_by_role(self, model: Denoiser) -> dict[str, Iterable[nn.Parameter]]:
        return {"model": model.network.parameters(), "weighting": self.parameters()}
