"""The latents of a run's data, computed once, and what they are."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor

from langevin.assembly.make import mistakes_of
from langevin.codecs.codec import CachedCodec, Codec, LatentStatistics
from langevin.config.types import plain
from langevin.config.validate import ConfigError
from langevin.data.cache import CachedSamples
from langevin.data.latents import MomentsEncoder
from langevin.data.module import DataModule
from langevin.digest import digest_of
from langevin.errors import UserError
from langevin.files import write_json

STATISTICS = "statistics.json"
CHUNK = 2**24
"""Numbers whose statistics are taken at once."""


def encode_data(cfg: DictConfig, codec: Codec, data: DataModule, device: torch.device) -> None:
    """Compute the latents of the data once, where the codec allows that, and scale them by what they are.

    Args:
        cfg: the run's config, for messages.
        codec: of the training module; it goes to the device.
        data: opened.
        device: where the encoder runs.

    Raises:
        UserError: when they cannot be written, or do not vary.
        Interrupted: once a signal has come.
    """
    if not isinstance(codec, CachedCodec):
        return
    modality, codec = data.source.modality, codec.to(device)

    @torch.no_grad()
    def encode(stored: NDArray[Any]) -> NDArray[np.float16]:
        x = modality.to_model(torch.from_numpy(np.array(stored)).movedim(-1, 1).to(device))
        moments: NDArray[np.float16] = codec.moments(x).movedim(1, -1).half().cpu().numpy()
        return moments

    shape = encode(data.train_set.samples[:1]).shape[1:]
    # Not by the weights alone: such as the groups of a normalization are no weights, and change what is computed.
    function = f"{digest_of(codec.encoder)} {plain(cfg[codec.uses]) if codec.uses else ''}"
    statistics = statistics_of(codec, data.encode(MomentsEncoder(shape, function, encode)))
    try:
        codec.fit(statistics)
    except UserError as error:
        raise ConfigError(mistakes_of(cfg, "codec", error)) from error


def statistics_of(codec: CachedCodec, moments: CachedSamples) -> LatentStatistics:
    """The statistics of the latents that have these moments; kept beside them."""
    file = moments.folder / STATISTICS
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(file.read_text())
        return LatentStatistics(*(torch.tensor(kept[name], dtype=torch.float64) for name in LatentStatistics._fields))

    def parts() -> Iterator[tuple[Tensor, Tensor]]:
        number = max(1, CHUNK // moments.samples[0].size)
        for first in range(0, len(moments), number):
            rows = torch.from_numpy(np.array(moments.samples[first : first + number])).movedim(-1, 1)
            yield codec.mean_and_variance(rows.double())

    statistics = LatentStatistics.of(parts())
    with suppress(OSError):  # a cache may lie on a read-only disk
        write_json(file, {name: values.tolist() for name, values in statistics._asdict().items()})
    return statistics
