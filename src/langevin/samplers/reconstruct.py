"""Reconstructions of given samples by an autoencoder, as a pipeline whose samples have targets."""

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langevin.autoencoding.model import AutoencoderModel
from langevin.batches import Batches
from langevin.codecs.autoencoder import slices
from langevin.codecs.codec import Codec
from langevin.diffusion.draws import SampleDraws
from langevin.modalities.modality import Modality
from langevin.samplers.given import Given, OfGiven
from langevin.samplers.pipeline import SAMPLES, Pipeline, SampleBatch
from langevin.samplers.store import SampleStore


class ReconstructionPipeline(Pipeline):
    """Sample i is the reconstruction of the i-th of some samples, which is its target; latents are their means.

    Args:
        given: the samples.
        modality: what they are.
        codec: between the samples and what is reconstructed.
        settings: which weights were chosen, for a protocol: plain values.
    """

    def __init__(
        self, given: Given, modality: Modality, codec: Codec, settings: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        self.given = given
        self.modality = modality
        self.codec = codec
        self.settings = settings
        self.requests = OfGiven(given.labels)

    def __call__(
        self, model: AutoencoderModel, indices: Sequence[int], seed: int, batch_size: int, device: torch.device | str
    ) -> Iterator[SampleBatch]:
        """See `Pipeline`; of the indices those that are given."""
        indices = [index for index in indices if index < len(self.given.samples)]
        for start in range(0, len(indices), batch_size):
            batch = indices[start : start + batch_size]
            yield self._batch(batch, self._make(model, batch, seed, device))

    def stored(
        self,
        model: AutoencoderModel,
        batches: Batches,
        seed: int,
        device: torch.device | str,
        store: SampleStore | None,
    ) -> Iterator[SampleBatch]:
        """See `Pipeline`."""
        for batch in batches:
            kept = None if store is None else store.get(batch)
            if kept is None:
                made = self._make(model, batch, seed, device)
                if store is not None:
                    store.put(batch, {SAMPLES: made.cpu().numpy()})
            else:
                made = torch.from_numpy(kept[SAMPLES])
            yield self._batch(batch, made)

    def record(self, model: AutoencoderModel, seed: int, precision: str = "32-true") -> dict[str, Any]:
        """See `Pipeline`."""
        reconstructed = {"split": self.given.split, "sha256": self.given.digest}
        made = {"reconstructed": reconstructed, "seed": seed, "precision": precision}
        return {**self.settings, **self.codec.record(), **made}

    def _batch(self, indices: Sequence[int], made: Tensor) -> SampleBatch:
        return SampleBatch(torch.tensor(indices), made, self.requests.cond(indices), self._given(indices))

    def _given(self, indices: Sequence[int]) -> Tensor:
        return torch.from_numpy(self.given.samples[np.asarray(indices)]).movedim(-1, 1)

    def _make(self, model: AutoencoderModel, indices: Sequence[int], seed: int, device: torch.device | str) -> Tensor:
        x = self.modality.to_model(self._given(indices).to(device))
        self.codec.to(device)
        z = self.codec.encode(x, SampleDraws(seed, indices, x.shape[1:], device))
        made = torch.cat([model(part).x.float() for part in slices(z, math.prod(z.shape[2:]))])
        return self.modality.from_model(self.codec.decode(made))
