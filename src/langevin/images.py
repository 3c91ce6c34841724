"""Pixels: between uint8 and [-1, 1], and into files."""

import io
import math
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from langevin.files import write_atomically
from langevin.visible import visible

LUMA = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in a grey level. Source: ITU-R BT.601."""
SIZE = "size"
"""The column of batches with what is known of the images' sizes, see `langevin.data.buckets.told`."""
HINT = "hint"
"""The column of images that samples are to agree with: (B, 1, H, W), bytes as stored, then in [0, 1]."""
VISIBLE_SIDE = 64
"""The side in pixels that small images are enlarged to, where they are to be looked at."""


LETTERS = 13
"""The height in pixels of labels, beside images of few pixels."""
LEAST_LETTERS = 9
"""The same where a word is wider than its image."""
LONGEST_SIDE_LABEL = 24
"""Letters of a label beside a row, at most: the rest is cut."""
MOST_LINES = 5
"""Lines of a label above or below images, at most: the rest is cut."""


def to_file(levels: Tensor) -> Tensor:
    """Levels in [0, 1] as those of a file, uint8."""
    return (255 * levels).round().to(torch.uint8)


def from_file(stored: Tensor) -> Tensor:
    """The levels of a file, uint8, in [0, 1]."""
    return stored.float() / 255


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

    def enlarged(self) -> np.ndarray:
        """It as in a file: uint8 (H * scale, W * scale, 3)."""
        return np.asarray(enlarged(self.pixels, self.scale))


class GridLabels(NamedTuple):
    """What is written beside images that are laid out in rows.

    Attributes:
        heads: above the first row, from the left: texts, and of how many columns each is.
        sides: to the left of each row.
        captions: below each image.
    """

    heads: Sequence[tuple[str, int]] = ()
    sides: Sequence[str] = ()
    captions: Sequence[str] = ()


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
    """Lay images uint8 (N, C, H, W) out in rows of `columns`: uint8 (H', W', 3), with a thin gap between them.

    As torchvision's `make_grid`, which takes longer to import than a small model to sample.
    """
    number, _, height, width = images.shape
    gap, columns = _gap(width), min(columns, number)
    rows = math.ceil(number / columns)
    grid = np.full((gap + rows * (height + gap), gap + columns * (width + gap), 3), 255, np.uint8)
    for place, image in enumerate(images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()):
        row, column = divmod(place, columns)
        top, left = gap + row * (height + gap), gap + column * (width + gap)
        grid[top : top + height, left : left + width] = image
    return grid


def labelled_grid(images: Tensor, columns: int, labels: GridLabels = GridLabels()) -> Figure:  # noqa: B008
    """Lay images out as `image_grid` does, small ones to be enlarged, with labels around them.

    Args:
        images: uint8 (N, C, H, W).
        columns: images in a row.
        labels: those above and below are broken into lines; what then does not fit is cut.
    """
    scale = enlargement(images.shape[-1])
    if not any(labels):
        return Figure(image_grid(images, columns), scale)
    rows = [enlarged(image_grid(row, columns), scale) for row in images.split(columns)]
    gap = scale * _gap(images.shape[-1])
    across, down = scale * images.shape[-1] + gap, scale * images.shape[-2] + gap
    spans = [*labels.heads, *((text, 1) for text in labels.captions)]
    font = _font_for([(word, span * across) for text, span in spans for word in visible(text).split()], across)
    line = sum(font.getmetrics()) if isinstance(font, ImageFont.FreeTypeFont) else LETTERS  # a font of bitmaps
    sides = [visible(side)[:LONGEST_SIDE_LABEL] for side in labels.sides]
    left = gap + math.ceil(max(map(font.getlength, sides))) if sides else 0
    heads = [(_broken(visible(text), font, span * across), span) for text, span in labels.heads]
    captions = [_broken(visible(text), font, across) for text in labels.captions]
    top, below = (line * max(map(len, texts), default=0) for texts in ([text for text, _ in heads], captions))
    size = left + max(row.width for row in rows), top + len(rows) * (down + below) + gap
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)

    def write(lines: Sequence[str], x: float, y: float, anchor: str) -> None:
        for place, text in enumerate(lines):
            draw.text((x, y + place * line), text, "black", font, anchor)

    for number, row in enumerate(rows):
        y = top + number * (down + below)
        canvas.paste(row, (left, y))
        if sides:
            write([sides[number]], left, y + gap + (down - gap) / 2, "rm")
        for column, caption in enumerate(captions[number * columns : (number + 1) * columns]):
            write(caption, left + gap + column * across + (across - gap) / 2, y + down, "ma")
    column = 0
    for lines, span in heads:
        write(lines, left + gap + column * across + (span * across - gap) / 2, gap / 2, "ma")
        column += span
    return Figure(np.asarray(canvas))


def class_labels(classes: Sequence[str] | None, columns: int) -> GridLabels:
    """The labels of a grid of images of some classes, or made of some prompts.

    They are above all columns where it is the same of all images, above each where that is of one, else below each
    image.
    """
    if classes is None:
        return GridLabels()
    if len(set(classes)) == 1:
        return GridLabels(heads=[(classes[0], min(columns, len(classes)))])
    by_column = [classes[column::columns] for column in range(min(columns, len(classes)))]
    if all(len(set(each)) == 1 for each in by_column):
        return GridLabels(heads=[(each[0], 1) for each in by_column])
    return GridLabels(captions=classes)


def shortened(text: str, letters: int) -> str:
    """A text of at most so many letters."""
    return text if len(text) <= letters else f"{text[: letters - 3]}..."


def _font_for(words: Sequence[tuple[str, float]], across: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The largest font in which every word fits into its pixels; where none is, that for images so far apart."""
    usual = max(LETTERS, across // 20)
    for size in range(usual, LEAST_LETTERS - 1, -1):
        font = ImageFont.load_default(size)
        if all(font.getlength(word) <= room for word, room in words):
            return font
    return ImageFont.load_default(usual)


def _broken(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float) -> list[str]:
    """A text in lines of at most some pixels, between words where that is possible; at least one line."""
    lines: list[str] = []
    rest = text.strip()
    while len(lines) < MOST_LINES - 1 and font.getlength(rest) > room:
        fits = next((n for n in range(len(rest), 0, -1) if font.getlength(rest[:n]) <= room), 0)
        if fits == 0:
            break
        end = fits if rest[fits] == " " else rest.rfind(" ", 0, fits)
        end = end if end > 0 else fits  # a word that is longer than a line
        lines.append(rest[:end])
        rest = rest[end:].lstrip()
    return [*lines, _cut(rest, font, room)]


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float) -> str:
    """A text, cut where it is longer than some pixels."""
    if font.getlength(text) <= room:
        return text
    length = next((n for n in range(len(text), 0, -1) if font.getlength(f"{text[:n]}...") <= room), 0)
    return f"{text[:length]}..." if length else ""


def _gap(width: int) -> int:
    """The pixels between two images of some width."""
    return max(1, width // 16)


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
