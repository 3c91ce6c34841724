"""Samples by number: sample i of a seed, for any batch size and number of processes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from langevin.batches import Batches
from langevin.codecs.codec import Codec
from langevin.config.types import node_of
from langevin.diffusion.denoiser import Condition, Denoise, Denoiser
from langevin.diffusion.draws import SampleDraws
from langevin.diffusion.process import Prediction
from langevin.diffusion.schedules.schedule import Schedule
from langevin.modalities.modality import Modality
from langevin.restoration.restoration import Visiting
from langevin.restoration.walk import Walk
from langevin.samplers.beginning import Beginning
from langevin.samplers.pipeline import NOISY, SAMPLES, Pipeline, SampleBatch
from langevin.samplers.requests import Requests
from langevin.samplers.restored import Restored
from langevin.samplers.sampler import OnPrediction, Sampler
from langevin.samplers.store import SampleStore
from langevin.samplers.truncated import Truncated

ENCODING = 2**63
"""Added to the seed of samples for the random numbers by which given ones are encoded."""


class Originals(NamedTuple):
    """Given samples that others are made of.

    Attributes:
        samples: as stored, (N, *size, C).
        labels: int64 (N,), or None.
        beginning: where sampling begins at them.
    """

    samples: NDArray[Any]
    labels: NDArray[np.int64] | None
    beginning: Beginning

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Condition]:
        """Some of them (B, C, *size), and the columns of their conditions (B,): "label" if they have any."""
        samples = torch.from_numpy(self.samples[indices]).movedim(-1, 1)
        return samples, {} if self.labels is None else {"label": torch.from_numpy(self.labels[indices])}


class SamplePipeline(Pipeline):
    """Makes samples with a denoiser: a sampler, its guidance, and what is requested.

    Args:
        sampler: takes noise to what is diffused.
        guide: puts guidance around a denoiser on some device, or hands it back.
        shape: the shape (C, *size) of what is diffused.
        modality: what the samples are.
        codec: between the samples and what is diffused.
        requests: the condition of each sample.
        settings: what `record` reports of the sampler and its guidance, as plain values.
        restored: what the samples are restored from, and how; None: they are sampled freely.

    Attributes:
        truncated: where sampling stops, set for a stage of a truncated cascade; None: at the data.
    """

    def __init__(
        self,
        sampler: Sampler,
        guide: Callable[[Denoiser, torch.device | str], Denoise],
        shape: tuple[int, ...],
        modality: Modality,
        codec: Codec,
        requests: Requests,
        settings: Mapping[str, Any] | None = None,
        restored: Restored | None = None,
    ) -> None:
        self.sampler = sampler
        self.guide = guide
        self.shape = shape
        self.modality = modality
        self.codec = codec
        self.requests = requests
        self.settings = dict(settings or {})
        self.restored = restored
        self.truncated: Truncated | None = None

    def __call__(
        self,
        denoiser: Denoiser,
        indices: Sequence[int],
        seed: int,
        batch_size: int,
        device: torch.device | str,
        on_prediction: OnPrediction | None = None,
    ) -> Iterator[SampleBatch]:
        """See `Pipeline`: sample i is made from the noise of (seed, i).

        Args:
            denoiser: the model.
            indices: which samples.
            seed: see above.
            batch_size: how many at once.
            device: where.
            on_prediction: is called after each evaluation of the model while sampling.
        """
        denoise = self._guided(denoiser, device)
        for start in range(0, len(indices), batch_size):
            batch = indices[start : start + batch_size]
            cond = self.requests.model_cond(denoiser, batch, seed, device)
            made = self._make(denoise, batch, seed, device, cond, on_prediction)
            yield self._batch(batch, self._finished(denoiser, cond, made))

    def stored(
        self,
        denoiser: Denoiser,
        batches: Batches,
        seed: int,
        device: torch.device | str,
        store: SampleStore | None,
        on_prediction: OnPrediction | None = None,
        originals: Originals | None = None,
    ) -> Iterator[SampleBatch]:
        """Make this process's share of the samples of `seed`, but for those that are in a store already.

        Args:
            denoiser: the model.
            batches: which samples; its progress bar shows how far a batch is too.
            seed: sample i is made from the noise of (seed, i).
            device: where.
            store: keeps finished batches; None: nothing does.
            on_prediction: is called after each evaluation of the model while sampling.
            originals: sample i is made of the i-th of these; None: of noise alone.
        """
        denoise = self._guided(denoiser, device)
        walked = denoiser.schedule if originals is None else originals.beginning.walked(denoiser.schedule)
        visited = self.sampler.times(walked)
        steps = (visited if self.truncated is None else self.truncated.times(visited))[:-1]

        def look(x_t: Tensor, t: Tensor, prediction: Prediction) -> None:
            batches.progress(float((steps > t).float().mean()))
            if on_prediction is not None:
                on_prediction(x_t, t, prediction)

        for batch in batches:
            kept = None if store is None else store.get(batch)
            if kept is None:
                cond = self.requests.model_cond(denoiser, batch, seed, device)
                made = self._make(denoise, batch, seed, device, cond, look, originals)
                made = self._finished(denoiser, cond, made)
                if store is not None:
                    store.put(batch, {name: tensor.cpu().numpy() for name, tensor in made.items()})
            else:
                made = {name: torch.from_numpy(array) for name, array in kept.items()}
            yield self._batch(batch, made)

    def _batch(self, indices: Sequence[int], made: Mapping[str, Tensor]) -> SampleBatch:
        target = (self.requests if self.restored is None else self.restored).targets(indices)
        cond = self.requests.cond(indices)
        return SampleBatch(torch.tensor(indices), made[SAMPLES], cond, target, made.get(NOISY))

    def _guided(self, denoiser: Denoiser, device: torch.device | str) -> Denoise:
        """What is sampled from; the codec goes to the same device."""
        self.codec.to(device)
        return self.guide(denoiser, device)

    def _chosen_spacing(self, schedule: Schedule) -> dict[str, Any]:
        """The timestep spacing that the sampler chose where that was left to it, as a config would name it."""
        timestep_spacing = self.sampler.spacing_on(schedule)
        if timestep_spacing is self.sampler.timestep_spacing:
            return {}
        return {"timestep_spacing": node_of(timestep_spacing)}

    def record(self, denoiser: Denoiser, seed: int, precision: str = "32-true") -> dict[str, Any]:
        """How its samples are made, for a protocol: plain values.

        Args:
            denoiser: the model, with EMA weights as everywhere.
            seed: of the samples.
            precision: that the model is evaluated in, by Lightning's names.
        """
        return {
            **self.settings,
            **self.codec.record(),
            **self._chosen_spacing(denoiser.schedule),
            **self.requests.record(),
            **({} if self.restored is None else self.restored.record()),
            **({} if self.truncated is None else self.truncated.record()),
            "evaluations": self.nfe(denoiser),
            "seed": seed,
            "precision": precision,
        }

    def nfe(self, denoiser: Denoiser) -> int:
        """How often the model, with its guidance, is evaluated for a sample; gradients of it are not counted."""
        count = 0

        def look(*_: object) -> None:
            nonlocal count
            count += 1

        blank = _Blank(denoiser.variance.channels(self.shape[0]))
        smallest = (self.shape[0], *(1,) * (len(self.shape) - 1))
        walk: Walk | None = self.truncated if self.restored is None else Visiting(self.restored.method)
        self.sampler(denoiser.with_network(blank), SampleDraws(0, [0], smallest, "cpu"), None, look, None, walk)
        return count

    def show(self, z: Tensor) -> Tensor:
        """What is diffused (B, ...), noisy or not, as stored samples (B, C, *size)."""
        return self.modality.from_model(self.codec.decode(z))

    def beside(self, made: Tensor, seed: int) -> dict[str, Tensor]:
        """The first samples (N, C, *size) as stored and what they were made of, of the same size, to be looked at."""
        indices = range(len(made))
        asked = self.requests.beside(indices)
        before, after, name = {**asked.before}, {**asked.after}, "sample"
        if self.restored is not None:
            of_restored, name = self.restored.beside(indices, seed), "restored"
            before, after = {**before, **of_restored.before}, {**after, **of_restored.after}
        kinds = {**{kind: grown(each, made) for kind, each in before.items()}, name: made, **after}
        channels = max(each.shape[1] for each in kinds.values())
        return {kind: each.expand(-1, channels, *each.shape[2:]) for kind, each in kinds.items()}

    def _finished(self, denoiser: Denoiser, cond: Condition, made: dict[str, Tensor]) -> dict[str, Tensor]:
        """What was made, with samples in which what their condition says of them exactly is so."""
        if not cond:
            return made
        x = self.modality.to_model(made[SAMPLES])
        finished = denoiser.finish(x, cond)
        return made if finished is x else {**made, SAMPLES: self.modality.from_model(finished)}

    def _make(
        self,
        denoise: Denoise,
        indices: Sequence[int],
        seed: int,
        device: torch.device | str,
        columns: Condition,
        on_prediction: OnPrediction | None,
        originals: Originals | None = None,
    ) -> dict[str, Tensor]:
        cond = columns or None
        fresh = SampleDraws(seed, indices, self.shape, device)
        if self.restored is not None:
            y, times = self.restored.measured(indices, seed, device), self.sampler.times(denoise.process.schedule)
            denoise, walk = self.restored.start(denoise, y, times, indices, seed, self.codec)
            x = self.codec.decode(self.sampler(denoise, fresh, cond, on_prediction, None, walk))
            return {SAMPLES: self.modality.from_model(self.restored.finished(x, y))}
        if self.truncated is not None:
            x_s = self.truncated.standard(self.sampler(denoise, fresh, cond, on_prediction, None, self.truncated))
            return {SAMPLES: self.show(x_s), NOISY: x_s}
        if originals is None:
            return {SAMPLES: self.show(self.sampler(denoise, fresh, cond, on_prediction))}
        stored, own = originals.batch(indices)
        as_it_was = None if cond is None else {name: own.get(name, column).to(device) for name, column in cond.items()}
        x = self.modality.to_model(stored.to(device))
        # Draws of its own, of another seed: those of what is diffused are then the same with any codec.
        z = self.codec.encode(x, SampleDraws((seed + ENCODING) % 2**64, indices, x.shape[1:], device))
        start = originals.beginning(self.sampler, denoise, z, as_it_was, fresh)
        made = {SAMPLES: self.show(self.sampler(denoise, fresh, cond, on_prediction, start))}
        return made | originals.beginning.kept(start, denoise.process)


def grown(images: Tensor, samples: Tensor) -> Tensor:
    """Images (N, C', *size') of the size of samples (N, C, *size), each pixel a block; one channel becomes C."""
    for axis in range(2, samples.ndim):
        images = images.repeat_interleave(samples.shape[axis] // images.shape[axis], dim=axis)
    return images.expand(-1, max(images.shape[1], samples.shape[1]), *samples.shape[2:])


class _Blank(nn.Module):
    """A network that returns zeros, at no cost."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        return x.new_zeros(len(x), self.channels, *x.shape[2:])
