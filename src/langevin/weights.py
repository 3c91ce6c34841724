"""Files of weights, read safely."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from langevin.errors import UserError

SAFETENSORS, LIGHTNING = ".safetensors", ".ckpt"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of named tensors onto the CPU: safetensors, or what `torch.save` wrote (.bin, .pt, .pth).

    Nothing but tensors and plain values is unpickled. Of a Lightning checkpoint (.ckpt) it is the state dict.

    Raises:
        UserError: when the file is missing, damaged, or holds anything else.
    """
    if not path.is_file():
        raise UserError(f"weights {path} do not exist; give a file of weights, or a folder that holds one")
    try:
        if path.suffix == SAFETENSORS:
            from safetensors.torch import load_file

            weights: Any = load_file(path)
        elif path.suffix == LIGHTNING:
            weights = _of_lightning(path)
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


class Inert:
    """Stands for an object of any class in a pickle: takes whatever it is made of, and does nothing."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


def _of_lightning(path: Path) -> Any:
    """The state dict of a Lightning checkpoint, beside which callbacks and hyperparameters stand as objects.

    Their classes are not imported: `Inert` takes the place of every class and function that is no tensor's.
    """
    unknown = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    with torch.serialization.safe_globals([(Inert, name) for name in unknown]):
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return content.get("state_dict", content) if isinstance(content, Mapping) else content
