"""Checkpoints of models that nobody has trained."""

from pathlib import Path

import torch
from omegaconf import DictConfig

from langevin.build.components import make_model
from langevin.build.run import record_of
from langevin.checkpoint import RECORD
from langevin.facts import DataFacts


def save_untrained(path: Path, cfg: DictConfig, facts: DataFacts) -> Path:
    """Save what a config would train, with random weights of which none is zero."""
    torch.manual_seed(1)
    network = make_model(cfg, facts).network
    for weight in network.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    weights = {f"ema.network.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({RECORD: record_of(cfg, facts), "state_dict": weights, "global_step": 0}, path)
    return path
