"""Files of weights, read safely."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from langevin.errors import UserError

SAFETENSORS = ".safetensors"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of named tensors onto the CPU: safetensors, or what `torch.save` wrote (.bin, .pt, .pth).

    Nothing but tensors and plain values is unpickled.

    Raises:
        UserError: when the file is missing, damaged, or holds anything else.
    """
    if not path.is_file():
        raise UserError(f"weights {path} do not exist; give a file of weights, or a folder that holds one")
    try:
        if path.suffix == SAFETENSORS:
            from safetensors.torch import load_file

            weights: Any = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file raises may be anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"weights {path} cannot be read: the file is damaged, or holds more than tensors, which is not unpickled "
            f"({reason.rstrip('.')}); fetch it again, or save the network's state_dict() as .safetensors"
        ) from error
    if not isinstance(weights, Mapping) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise UserError(
            f"weights {path} are no state dict; give a file that holds names and tensors only, as "
            "torch.save(network.state_dict(), FILE) writes it"
        )
    return dict(weights)
