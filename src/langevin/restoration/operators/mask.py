"""A mask that a user has drawn."""

import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from langevin.config.types import TARGET, path_of
from langevin.errors import OptionError
from langevin.restoration.operators.masking import Masking

BLACK, WHITE = 0, 255
IMAGE_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
"""Pillow's names of images of at most 8 bits a channel."""
SHOWN = 3
"""How many grey levels a message names."""


class FileMask(Masking):
    """A mask from a file: white pixels are unknown, to be made anew; black ones are known.

    The file is an image in black and white alone, such as a PNG; or .npy or .npz with one array, bool (H, W), of which
    true is white. It has the size of the images. One that is white all over leaves plain sampling, one that is black
    all over leaves nothing to make: both are taken, with a warning.

    Args:
        file: its path.

    Raises:
        OptionError: when there is no such file, or it holds something else.
    """

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = file
        place = Path(file).expanduser()
        if not place.is_file():
            raise OptionError("file", f"is {file!r}; there is no such file")
        try:
            mask = _array_of(place) if place.suffix in (".npy", ".npz") else _pixels_of(place)
        except _WrongContentError as error:
            raise OptionError("file", f"is {file!r}, which {error}") from error
        except Exception as error:  # a broken file makes decoders raise anything
            allowed = "allowed: a PNG in black and white, or .npy or .npz"
            raise OptionError("file", f"is {file!r}, which cannot be read ({error}); {allowed}") from error
        if mask.all():
            warnings.warn(f"the mask {file} is white all over: nothing is known, all is sampled", stacklevel=2)
        if not mask.any():
            warnings.warn(f"the mask {file} is black all over: all is known, nothing is to be made", stacklevel=2)
        self._unknown = torch.from_numpy(mask.copy())

    def unknown(self, height: int, width: int) -> Tensor:
        """See `Masking`."""
        own = tuple(self._unknown.shape)
        if own != (height, width):
            size, needed = (f"{rows} x {columns}" for rows, columns in (own, (height, width)))
            raise OptionError("file", f"is {self.file!r}, of {size} pixels (height x width); allowed: {needed}")
        return self._unknown

    def record(self) -> dict[str, Any]:
        """See `Operator`: the mask by the digest of what is in the file, whatever its name and format."""
        height, width = self._unknown.shape
        content = f"{height} x {width}\n".encode() + self._unknown.numpy().tobytes()
        return {TARGET: path_of(type(self)), "sha256": hashlib.sha256(content).hexdigest()}


class _WrongContentError(Exception):
    """A file that can be read, and is no mask: its message follows "which"."""


def _pixels_of(place: Path) -> NDArray[np.bool_]:
    """The white pixels of an image: (H, W)."""
    with Image.open(place) as image:
        if image.mode not in IMAGE_MODES:
            raise _WrongContentError(f"is an image of mode {image.mode}; allowed: 8 bits, in black and white")
        pixels = np.asarray(image.convert("RGBA"))
    if (pixels[..., 3] != WHITE).any():
        raise _WrongContentError("has transparent pixels; allowed: black (known) and white (to be made anew) alone")
    colours = pixels[..., :3]
    others = np.unique(colours[(colours != BLACK) & (colours != WHITE)])
    if len(others) or (colours != colours[..., :1]).any():
        levels = f"has levels such as {', '.join(map(str, others[:SHOWN]))}" if len(others) else "has colours"
        raise _WrongContentError(
            f"{levels}; allowed: {BLACK} (black: known) and {WHITE} (white: to be made anew) alone, as a PNG keeps them"
        )
    white: NDArray[np.bool_] = colours[..., 0] == WHITE
    return white


def _array_of(place: Path) -> NDArray[np.bool_]:
    """The array in an .npy or .npz file: (H, W)."""
    loaded = np.load(place, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        mask = loaded
    else:
        with loaded:
            if len(loaded.files) != 1:
                raise _WrongContentError(f"holds {', '.join(loaded.files) or 'nothing'}; allowed: a single array")
            mask = loaded[loaded.files[0]]
    if mask.dtype != bool or mask.ndim != 2 or mask.size == 0:
        raise _WrongContentError(
            f"holds {mask.dtype} of shape {mask.shape}; allowed: bool (H, W), true where it is to be made anew"
        )
    return mask
