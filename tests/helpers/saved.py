"""Checkpoints of models that nobody has trained."""

from pathlib import Path

import torch
from omegaconf import DictConfig

from langevin.assembly.components import make_model
from langevin.assembly.saved import checkpoint_of, record_of
from langevin.codecs.codec import Codec
from langevin.spec import DataSpec


def save_untrained(path: Path, cfg: DictConfig, spec: DataSpec, codec: Codec | None = None) -> Path:
    """Save what a config would train for data of some spec, with random weights of which none is zero."""
    torch.manual_seed(1)
    network = make_model(cfg, spec if codec is None else codec.spec(spec)).network
    for weight in network.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    torch.save(checkpoint_of(network, record_of(cfg, spec), codec), path)
    return path
