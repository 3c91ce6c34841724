"""Parts as a user adds them: a class each, and a YAML in conf. Nothing of them is known to src."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Gt
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from langevin.codecs.codec import Codec
from langevin.conditions.condition import Condition, Context
from langevin.data.digits import Digits
from langevin.data.images import ArrayRows, Transform
from langevin.data.source import SampleSet, Source
from langevin.diffusion.auxiliary import Auxiliary, Seen
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.draws import Draws
from langevin.diffusion.level import Level, broadcast_to
from langevin.diffusion.objective import Denoising, Simple
from langevin.diffusion.process import Noised, Prediction
from langevin.diffusion.schedules.schedule import SMALLEST_TIME, VariancePreserving
from langevin.diffusion.time_sampler import TimeSampler
from langevin.diffusion.weighting import Weighting
from langevin.errors import OptionError
from langevin.images import Figure
from langevin.modalities.modality import Modality
from langevin.networks.network import Network
from langevin.spec import DataSpec


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

    def load(self, split: str) -> SampleSet:
        images = super().load(split)
        assert images.labels is not None
        caption = np.stack([images.labels, images.labels % 2 + 10], axis=1)
        array = images.lazy.array.astype(np.float32) / 127.5 - 1
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


class Halved(Condition):
    """The sample itself at half of its size, computed of it and with noise of its own in training."""

    inputs = derived = frozenset({"half", "noise"})
    concat_channels = 1

    def derive(self, x: Tensor, draws: Draws, sampling: bool = False) -> dict[str, Tensor]:
        half = functional.avg_pool2d(x, 2)
        noise = torch.zeros_like(half) if sampling else draws.normal(half.shape[1:])
        return {"half": half, "noise": noise}

    def forward(self, cond: Mapping[str, Tensor] | None, batch: int) -> Context:
        assert cond is not None
        return Context(concat=functional.interpolate(cond["half"] + 0.1 * cond["noise"], scale_factor=2))

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


class Edges(Auxiliary):
    """The error of the differences of neighbouring pixels of a row, with a trained scale: a loss of structure."""

    def __init__(self, weight: Annotated[float, Gt(0)]) -> None:
        super().__init__(weight)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, seen: Seen) -> Tensor:
        made, real = (each.diff(dim=3) for each in (seen.prediction.x, seen.x))
        return (self.scale * made - real).square().flatten(1).mean(1)


class LinearCodec(Codec):
    """A random orthogonal map of an image's numbers to latents (C, size, size), of which the first `kept` are kept."""

    matrix: Tensor

    def __init__(self, spec: DataSpec, size: Annotated[int, Ge(1)], kept: Annotated[int, Ge(1)], seed: int) -> None:
        super().__init__()
        number = math.prod(spec.shape)
        if kept > number or kept % size**2:
            raise OptionError("kept", f"is {kept}; allowed: a multiple of {size**2}, at most {number}")
        self.data, self.size = spec.shape, size
        drawn = np.random.Generator(np.random.Philox(seed)).standard_normal((number, number))
        self.register_buffer("matrix", torch.from_numpy(np.linalg.qr(drawn)[0][:kept].astype(np.float32)))

    def spec(self, spec: DataSpec) -> DataSpec:
        return replace(spec, shape=(len(self.matrix) // self.size**2, self.size, self.size), levels=None)

    def encode(self, x: Tensor, draws: Draws) -> Tensor:
        return (x.flatten(1) @ self.matrix.T).reshape(len(x), -1, self.size, self.size)

    def decode(self, z: Tensor) -> Tensor:
        return (z.flatten(1) @ self.matrix).reshape(len(z), *self.data)


class Wave(Modality):
    """Sounds: int16 levels, for a model in [-1, 1]."""

    noun = "waves"
    levels = 2**16

    def to_model(self, stored: Tensor) -> Tensor:
        return stored.float() / 2**15

    def from_model(self, x: Tensor) -> Tensor:
        return (x * 2**15).round().clamp(-(2**15), 2**15 - 1).to(torch.int16)

    def preview(self, samples: Tensor, columns: int, classes: Sequence[str] | None = None) -> Figure:
        levels = ((samples.int() + 2**15) // 256).to(torch.uint8)
        return Figure(levels.reshape(len(levels), -1, 1).expand(-1, -1, 3).numpy())

    def strips(self, x_t, x, finished, times=(), classes=None) -> Figure:
        return self.preview(torch.cat([*x_t, *x, finished]), 1)


@dataclass(frozen=True)
class Integers:
    """int16 as they are."""

    shape: tuple[int, ...]
    dtype: ClassVar[type[np.generic]] = np.int16

    def __call__(self, sample: NDArray[np.int16]) -> NDArray[np.int16]:
        return sample

    def enlarges(self, sample: NDArray[np.int16]) -> bool:
        return False


class Waves(Source):
    """Sines of random frequencies."""

    modality = Wave()

    def __init__(self, length: Annotated[int, Ge(1)], number: Annotated[int, Ge(1)]) -> None:
        self.length, self.number = length, number

    @property
    def transform(self) -> Transform:
        return Integers((self.length, 1))

    def check(self) -> None:
        pass

    def splits(self) -> tuple[str, ...]:
        return ("train",)

    def fingerprint(self, split: str) -> str:
        return f"{self.number} of {self.length}"

    def load(self, split: str) -> SampleSet:
        frequency = np.linspace(0.1, 1, self.number)[:, None, None]
        waves = np.sin(frequency * np.arange(self.length)[:, None])
        return SampleSet(ArrayRows((waves * 30_000).astype(np.int16)))


class Convolution1d(Network):
    """Two convolutions, with the noise level added between them."""

    axes = 1

    def __init__(self, *, in_channels: int, out_channels: int, condition: object, channels: Annotated[int, Ge(1)]):
        super().__init__()
        self.condition = None
        self.first = nn.Conv1d(in_channels, channels, 5, padding=2)
        self.time = nn.Linear(1, channels)
        self.last = nn.Conv1d(channels, out_channels, 5, padding=2)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Mapping[str, Tensor] | None = None) -> Tensor:
        return self.last(torch.relu(self.first(x) + self.time(c_noise[:, None].float() / 1000)[..., None]))
