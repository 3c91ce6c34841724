"""The files of diffusers' folders: their names, and how they are read and written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from torch import Tensor

from langevin.errors import UserError
from langevin.files import write_atomically, write_json
from langevin.interop.renaming import StateDict
from langevin.weights import SAFETENSORS, read_weights

INDEX, NETWORK_FILE, SCHEDULER_FILE = "model_index.json", "config.json", "scheduler_config.json"
WEIGHTS = tuple("diffusion_pytorch_model" + suffix for suffix in (SAFETENSORS, ".bin"))
"""The names of a network's weights, those first that are taken first."""
VERSION = "0.32.0"
"""The version of diffusers whose format is written."""


class DiffusersPart(NamedTuple):
    """A network as diffusers has it.

    Attributes:
        kind: its class.
        config: its arguments.
        weights: by their names there.
    """

    kind: str
    config: Mapping[str, Any]
    weights: StateDict

    def write(self, folder: Path) -> None:
        """Write its own folder."""
        write_weights(folder / WEIGHTS[0], self.weights)
        write_json(folder / NETWORK_FILE, {"_class_name": self.kind, "_diffusers_version": VERSION, **self.config})


def read_json(file: Path) -> dict[str, Any]:
    """Read a config.

    Raises:
        UserError: when it is missing or damaged.
    """
    try:
        config = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{file} is no config; allowed: names and values, as diffusers writes them")
    return config


def read_network(folder: Path) -> dict[str, Tensor]:
    """Read the weights of a network's folder.

    Raises:
        UserError: when there are none, or they are damaged.
    """
    file = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise UserError(f"{folder} holds no weights; allowed: {' or '.join(WEIGHTS)}")
    return read_weights(file)


def write_weights(file: Path, weights: StateDict, metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors as safetensors, with texts beside them."""
    whole: dict[str, Tensor] = {name: tensor.contiguous() for name, tensor in weights.items()}
    content = safetensors.torch.save(whole, {"format": "pt", **(metadata or {})})
    write_atomically(file, lambda opened: opened.write(content))
