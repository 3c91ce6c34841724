"""Images by number: image i of a seed, for any batch size and number of processes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from langevin.diffusion.denoiser import Condition, Denoise, Denoiser
from langevin.diffusion.noise import ImageNoise, NoiseSource
from langevin.diffusion.schedules.schedule import Schedule
from langevin.errors import UserError
from langevin.images import from_uint8, to_uint8
from langevin.samplers.ddim import DDIM
from langevin.samplers.sampler import OnPrediction, Sampler
from langevin.samplers.store import SampleStore


class Generated(NamedTuple):
    """A batch of finished images.

    Attributes:
        indices: which images these are, int64 (B,), on the CPU.
        images: uint8 (B, C, H, W).
        labels: int64 (B,) on the CPU; None for an unconditional model.
        noise: where they were made from inverted originals, what that inversion gave: float32 (B, C, H, W), of unit
            variance, on the CPU; else None.
    """

    indices: Tensor
    images: Tensor
    labels: Tensor | None
    noise: Tensor | None


def share(number: int, batch_size: int, rank: int, world_size: int) -> list[int]:
    """The numbers below `number` that fall to one process: whole batches, dealt out in turn.

    Cut into batches of `batch_size` again, they give the same batches for any number of processes, and so the same
    results bit for bit: in floating point, a network's output for an image depends a little on the rest of the batch.
    """
    starts = range(rank * batch_size, number, world_size * batch_size)
    return [index for start in starts for index in range(start, min(start + batch_size, number))]


def beginning_with(first: Tensor, rest: NoiseSource) -> NoiseSource:
    """A noise source that gives `first` at first."""
    left = [first]
    return lambda: left.pop() if left else rest()


class SamplePipeline:
    """Makes images with a denoiser: a sampler, its guidance, and the requested labels.

    Args:
        sampler: takes noise to images.
        guide: puts guidance around a denoiser on some device, or hands it back.
        shape: the shape (C, H, W) of an image.
        num_classes: the model's classes; None for an unconditional model.
        labels: image i is of class ``labels[i % len(labels)]``; None for every class in turn.
        settings: what `record` reports of the sampler and its guidance, as plain values.

    Raises:
        UserError: when labels are given to an unconditional model, or lie outside its classes.
    """

    def __init__(
        self,
        sampler: Sampler,
        guide: Callable[[Denoiser, torch.device | str], Denoise],
        shape: tuple[int, int, int],
        num_classes: int | None,
        labels: Sequence[int] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if num_classes is None and labels is not None:
            raise UserError(f"labels is {list(labels)}; the model is unconditional, so leave labels out")
        if num_classes is not None:
            labels = range(num_classes) if labels is None else labels
            wrong = [label for label in labels if not 0 <= label < num_classes]
            if wrong or not labels:
                raise UserError(f"labels is {list(labels)}; allowed: whole numbers from 0 to {num_classes - 1}")
        self.sampler = sampler
        self.guide = guide
        self.shape = shape
        self.labels = labels
        self.settings = dict(settings or {})

    def __call__(
        self,
        denoiser: Denoiser,
        indices: Sequence[int],
        seed: int,
        batch_size: int,
        device: torch.device | str,
        on_prediction: OnPrediction | None = None,
        original: Callable[[Sequence[int]], tuple[Tensor, Tensor | None]] | None = None,
        store: SampleStore | None = None,
    ) -> Iterator[Generated]:
        """Make the images `indices` of `seed`, `batch_size` at a time.

        Args:
            denoiser: the model.
            indices: which images.
            seed: image i is made from the noise of (seed, i).
            batch_size: how many at once.
            device: where.
            on_prediction: is called after each evaluation of the model while sampling.
            original: gives the images uint8 (B, C, H, W) of some indices, and their labels (B,) or None; then image
                i is made from the noise that inverting them gives. The sampler must be able to invert.
            store: where finished batches are kept, and taken from; None: nowhere.
        """
        denoise = self.guide(denoiser, device)
        for start in range(0, len(indices), batch_size):
            batch = indices[start : start + batch_size]
            labels = None if self.labels is None else torch.tensor([self.labels[i % len(self.labels)] for i in batch])
            kept = None if store is None else store.get(batch)
            if kept is None:
                made = self._make(denoise, batch, labels, seed, device, on_prediction, original)
                if store is not None:
                    store.put(batch, {name: tensor.cpu().numpy() for name, tensor in made.items()})
            else:
                made = {name: torch.from_numpy(array) for name, array in kept.items()}
            yield Generated(torch.tensor(batch), made["images"], labels, made.get("noise"))

    def requested_labels(self, number: int) -> NDArray[np.int64] | None:
        """The requested class of each of the first images, (number,); None of an unconditional model."""
        return None if self.labels is None else np.resize(np.array(self.labels, np.int64), number)

    def _chosen_grid(self, schedule: Schedule) -> dict[str, Any]:
        """The grid that the sampler chose where that was left to it, as a config would name it."""
        grid = self.sampler.grid_on(schedule)
        if grid is self.sampler.grid:
            return {}
        kind = type(grid)
        return {"grid": {"_target_": f"{kind.__module__}.{kind.__qualname__}", **vars(grid)}}

    def record(self, denoiser: Denoiser, seed: int, precision: str = "32-true") -> dict[str, Any]:
        """How its images are made, for a protocol: plain values.

        Args:
            denoiser: the model, with EMA weights as everywhere.
            seed: of the images.
            precision: that the model is evaluated in, by Lightning's names.
        """
        return {
            **self.settings,
            **self._chosen_grid(denoiser.schedule),
            "labels": None if self.labels is None else list(self.labels),
            "evaluations": self.nfe(denoiser),
            "seed": seed,
            "precision": precision,
        }

    def nfe(self, denoiser: Denoiser) -> int:
        """How often the model, with its guidance, is evaluated for an image."""
        count = 0

        def look(*_: object) -> None:
            nonlocal count
            count += 1

        blank = _Blank(denoiser.variance.channels(self.shape[0]))
        self.sampler(denoiser.with_network(blank), ImageNoise(0, [0], (self.shape[0], 1, 1), "cpu"), None, look)
        return count

    def _make(
        self,
        denoise: Denoise,
        indices: Sequence[int],
        labels: Tensor | None,
        seed: int,
        device: torch.device | str,
        on_prediction: OnPrediction | None,
        original: Callable[[Sequence[int]], tuple[Tensor, Tensor | None]] | None,
    ) -> dict[str, Tensor]:
        cond = None if labels is None else {"label": labels.to(device)}
        fresh = ImageNoise(seed, indices, self.shape, device)
        if original is None:
            return {"images": to_uint8(self.sampler(denoise, fresh, cond, on_prediction))}
        images, own = original(indices)
        as_it_was = cond if cond is None or own is None else {"label": own.to(device)}
        assert isinstance(self.sampler, DDIM)
        noise = self.sampler.invert(denoise, from_uint8(images.to(device)), as_it_was)
        made = self.sampler(denoise, beginning_with(noise, fresh), cond, on_prediction)
        return {"images": to_uint8(made), "noise": noise.cpu()}


class _Blank(nn.Module):
    """A network that returns zeros, at no cost."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        return x.new_zeros(len(x), self.channels, *x.shape[2:])
