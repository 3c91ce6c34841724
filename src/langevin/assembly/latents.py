"""What diffusion in latents takes: the run that a config's codec names, and the data's latents."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor

from langevin.assembly.components import codec_uses
from langevin.assembly.make import mistakes_of
from langevin.assembly.saved import autoencoder_of
from langevin.assembly.tasks import task_of
from langevin.codecs.codec import CachedCodec, Codec, LatentStatistics
from langevin.config.types import plain
from langevin.config.validate import ConfigError, Mistake
from langevin.data.cache import CachedSamples
from langevin.data.latents import Encoder
from langevin.data.module import DataModule
from langevin.digest import digest_of
from langevin.errors import UserError
from langevin.files import write_json

STATISTICS = "statistics.json"
CHUNK = 4096
"""Rows whose statistics are taken at once."""


def complete(cfg: DictConfig) -> list[Mistake]:
    """Write into a config what the run that its codec names is: the network, its weights' digest and its channels.

    So a run's config says what it was trained in, wherever that run lies, and whatever it becomes.

    Returns:
        the mistakes found; where there are any, the config is as it was.
    """
    node = cfg.get("codec")
    place = None if not isinstance(node, DictConfig) or OmegaConf.is_missing(node, "run") else node.get("run")
    try:
        if not isinstance(place, str) or codec_uses(cfg) != "autoencoder" or task_of(cfg).network == "autoencoder":
            return []
        network, channels, own = autoencoder_of("run", place, tuple(cfg.get("trust") or ()))
    except ConfigError as error:
        return error.mistakes
    except UserError as error:
        return mistakes_of(cfg, "codec", error)
    found = {"weights": digest_of(network), "channels": channels}
    mistakes = [
        Mistake(f"codec.{name}", f"is {node[name]}, but codec.run={place} has {value}; leave it out")
        for name, value in found.items()
        if node.get(name) not in (None, value)
    ]
    if cfg.get("autoencoder") is not None and plain(cfg.autoencoder) != own:
        mistakes.append(Mistake("autoencoder", f"is another one than that of codec.run={place}; leave it out"))
    if not mistakes:
        with open_dict(cfg):
            cfg.autoencoder = own
            node.update(found)
    return mistakes


def encode_data(codec: Codec, data: DataModule, device: torch.device) -> None:
    """Compute the latents of the data once, where the codec allows that, and scale them by what they are.

    Args:
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
    codec.fit(statistics_of(codec, data.encode(Encoder(shape, digest_of(codec.encoder), encode))))


def statistics_of(codec: CachedCodec, moments: CachedSamples) -> LatentStatistics:
    """The statistics of the latents that have these moments; kept beside them."""
    file = moments.folder / STATISTICS
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(file.read_text())
        return LatentStatistics(*(torch.tensor(kept[name], dtype=torch.float64) for name in LatentStatistics._fields))

    def parts() -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(0, len(moments), CHUNK):
            rows = torch.from_numpy(moments.samples[first : first + CHUNK]).movedim(-1, 1)
            yield codec.mean_and_variance(rows.double())

    statistics = LatentStatistics.of(parts())
    with suppress(OSError):  # a cache may lie on a read-only disk
        write_json(file, {name: values.tolist() for name, values in statistics._asdict().items()})
    return statistics
