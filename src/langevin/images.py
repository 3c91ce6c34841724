"""Pixels: between uint8 and [-1, 1], and into files."""

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from langevin.files import write_atomically

VISIBLE_SIDE = 64
"""The side in pixels that small images are enlarged to, where they are to be looked at."""


def from_uint8(images: Tensor) -> Tensor:
    """Map uint8 levels 0..255 to float32 in [-1, 1]: ``u / 127.5 - 1``."""
    return images.float().div_(127.5).sub_(1)


def to_uint8(images: Tensor) -> Tensor:
    """Map [-1, 1] to the nearest uint8 level (values outside are clamped): the inverse of `from_uint8`."""
    return images.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


class Figure(NamedTuple):
    """What is to be looked at.

    Attributes:
        pixels: uint8 (H, W, 3).
        scale: how many times it is to be enlarged in a file.
    """

    pixels: np.ndarray
    scale: int = 1

    def write(self, path: Path) -> None:
        """Write it as PNG."""
        write_png(path, self.pixels, self.scale)

    def png(self) -> bytes:
        """It as PNG."""
        file = io.BytesIO()
        enlarged(self.pixels, self.scale).save(file, "PNG")
        return file.getvalue()


def write_npz(path: Path, parts: Iterable[np.ndarray], number: int, **arrays: np.ndarray) -> None:
    """Write an .npz file whose ``arr_0`` need not fit into memory.

    Args:
        path: the file.
        parts: of ``arr_0``, along its first axis; at least one.
        number: the length of ``arr_0``.
        **arrays: further arrays.
    """

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            with archive.open("arr_0.npy", "w", force_zip64=True) as member:
                for position, part in enumerate(parts):
                    if position == 0:
                        header = {"descr": part.dtype.str, "fortran_order": False, "shape": (number, *part.shape[1:])}
                        np.lib.format.write_array_header_1_0(member, header)
                    member.write(part.tobytes())
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    write_atomically(path, write)


def image_grid(images: Tensor, columns: int) -> np.ndarray:
    """Lay images uint8 (N, C, H, W) out in rows of `columns`: uint8 (H', W', 3), with a thin gap between them."""
    from torchvision.utils import make_grid

    return (
        make_grid(images.cpu(), nrow=columns, padding=max(1, images.shape[-1] // 16), pad_value=255)
        .permute(1, 2, 0)
        .numpy()
    )


def enlargement(image_size: int) -> int:
    """How many times images of a side of `image_size` pixels are enlarged in a PNG, so that one can see them."""
    return max(1, VISIBLE_SIDE // image_size)


def write_png(path: Path, pixels: np.ndarray, scale: int = 1) -> None:
    """Write an image, uint8 (H, W, 3), enlarged `scale` times without smoothing, as PNG."""
    image = enlarged(pixels, scale)
    write_atomically(path, lambda file: image.save(file, "PNG"))


def enlarged(pixels: np.ndarray, scale: int) -> Image.Image:
    """An image, uint8 (H, W, 3), `scale` times as large, without smoothing."""
    image = Image.fromarray(pixels)
    if scale == 1:
        return image
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
