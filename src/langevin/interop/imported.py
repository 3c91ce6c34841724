"""What a reader of another library's model finds out."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from langevin.errors import UserError


class ImportedCodec(NamedTuple):
    """The autoencoder in whose latents an imported model diffuses.

    Attributes:
        weights: given the parameters of the composed config's autoencoder, the state dict of ours.
        shift: of its latents before they are scaled.
    """

    weights: Callable[[Mapping[str, Any]], dict[str, Tensor]]
    shift: float


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
        origin: plain values that came with it and that our config has no place for, such as its `scaling_factor`.
        codec: the autoencoder that came with it; None of a model of images.
        text: the folder that has its encoder of text; None of a model that sees none.
    """

    overrides: list[str]
    channels: int
    image_size: int
    num_classes: int | None
    weights: Callable[[Mapping[str, Any]], dict[str, Tensor]]
    notes: tuple[str, ...] = ()
    origin: Mapping[str, Any] = MappingProxyType({})
    codec: ImportedCodec | None = None
    text: Path | None = None


def refuse_latents(place: Path, channels: int) -> None:
    """Check that a network which came without an autoencoder is one of pixels.

    Args:
        place: the folder or file.
        channels: of what the network diffuses.

    Raises:
        UserError: when it diffuses the latents of an autoencoder.
    """
    if channels not in (1, 3):
        raise UserError(
            f"import={place}: diffuses latents of {channels} channels; allowed: a model of images of 1 or 3 channels, "
            "or the folder of a pipeline that has the autoencoder of these latents too, as vae/ or vqvae/"
        )
