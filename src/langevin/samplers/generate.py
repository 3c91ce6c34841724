"""Pictures by number: picture i of a seed, whatever the batch size and the number of processes."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Denoise, Denoiser
from langevin.diffusion.noise import ImageNoise, NoiseSource
from langevin.errors import UserError
from langevin.images import from_uint8, to_uint8
from langevin.samplers.ddim import DDIM
from langevin.samplers.sampler import OnPrediction, Sampler


class Generated(NamedTuple):
    """A batch of finished pictures.

    Attributes:
        indices: which pictures these are, int64 (B,), on the CPU.
        images: uint8 (B, C, H, W).
        labels: int64 (B,) on the CPU; None for an unconditional model.
        noise: what the pictures were made from, float32 (B, C, H, W) of unit variance.
    """

    indices: Tensor
    images: Tensor
    labels: Tensor | None
    noise: Tensor


def share(number: int, batch_size: int, rank: int, world_size: int) -> list[int]:
    """The numbers below `number` that fall to one process: whole batches, dealt out in turn.

    Cut into batches of `batch_size` again, they give the same batches for any number of processes, and so the same
    results to the last bit: in floating point, what a network says of an image depends a little on its company.
    """
    starts = range(rank * batch_size, number, world_size * batch_size)
    return [index for start in starts for index in range(start, min(start + batch_size, number))]


def beginning_with(first: Tensor, rest: NoiseSource) -> NoiseSource:
    """A noise source that gives `first` at first."""
    left = [first]
    return lambda: left.pop() if left else rest()


class Generator:
    """Makes pictures with a denoiser: a sampler, its guidance, and the labels asked for.

    Args:
        sampler: takes noise to pictures.
        guide: puts guidance around a denoiser on some device, or hands it back.
        shape: the shape (C, H, W) of a picture.
        num_classes: the model's classes; None for an unconditional model.
        labels: picture i is of class ``labels[i % len(labels)]``; None for every class in turn.

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

    def __call__(
        self,
        denoiser: Denoiser,
        indices: Sequence[int],
        seed: int,
        batch_size: int,
        device: torch.device | str,
        on_prediction: OnPrediction | None = None,
        original: Callable[[Sequence[int]], tuple[Tensor, Tensor | None]] | None = None,
    ) -> Iterator[Generated]:
        """Make the pictures `indices` of `seed`, `batch_size` at a time.

        Args:
            denoiser: the model.
            indices: which pictures.
            seed: picture i is made from the noise of (seed, i).
            batch_size: how many at once.
            device: where.
            on_prediction: is called after each evaluation of the model on the way from noise to pictures.
            original: gives the pictures uint8 (B, C, H, W) of some indices, and their labels (B,) or None; then picture
                i is made from the noise that inversion says they come from. The sampler must be able to invert.
        """
        denoise = self.guide(denoiser, device)
        for start in range(0, len(indices), batch_size):
            batch = indices[start : start + batch_size]
            labels = None if self.labels is None else torch.tensor([self.labels[i % len(self.labels)] for i in batch])
            cond = None if labels is None else {"label": labels.to(device)}
            fresh = ImageNoise(seed, batch, self.shape, device)
            if original is None:
                first = fresh()
            else:
                images, own = original(batch)
                as_it_was = cond if cond is None or own is None else {"label": own.to(device)}
                assert isinstance(self.sampler, DDIM)
                first = self.sampler.invert(denoise, from_uint8(images.to(device)), as_it_was)
            made = self.sampler(denoise, beginning_with(first, fresh), cond, on_prediction)
            yield Generated(torch.tensor(batch), to_uint8(made), labels, first)
