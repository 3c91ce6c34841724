"""What a reader of another library's model finds out, and the safe reading of its weights."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from langevin.errors import UserError

SAFETENSORS = ".safetensors"


class Imported(NamedTuple):
    """A model of another library in our terms.

    Attributes:
        overrides: the choices of the training config that describe it, such as ["model=unet", "model.channels=128",
            "parameterization=eps"]. A schedule or parameterization that is not among them is the user's to choose.
        channels: of an image.
        image_size: the side of an image in pixels.
        num_classes: how many classes it is conditioned on; None when it is unconditional.
        weights: given the parameters of the composed config's model, without its `_target_`, the state dict of our
            network.
        notes: what is not the same here, or is chosen here, a sentence each.
    """

    overrides: list[str]
    channels: int
    image_size: int
    num_classes: int | None
    weights: Callable[[Mapping[str, Any]], dict[str, Tensor]]
    notes: tuple[str, ...] = ()


def refuse_latents(place: Path, channels: int) -> None:
    """Check that a model is one of pixels: what is imported has no codec.

    Args:
        place: the folder, which may hold a vae/, or the file.
        channels: of what the model diffuses.

    Raises:
        UserError: when it diffuses the latents of an autoencoder.
    """
    if (place / "vae").is_dir() or channels not in (1, 3):
        what = "the latents of its vae/" if (place / "vae").is_dir() else f"latents of {channels} channels"
        raise UserError(
            f"import={place}: diffuses {what}; allowed: a model of images of 1 or 3 channels, for a latent model needs "
            "a codec, which comes with another option and is not imported"
        )


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
