"""The images of runs: as few of their steps as have room, evenly spread."""

import base64
import hashlib
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from langevin.files import require_regular

NAME = re.compile(r"(.+)_(\d+)\.png")
MOST_PIXELS = 40_000_000
"""Of an image: a small file could unfold to any number."""
MOST = 40
"""How many steps are shown where the room is not the limit: more than anyone looks at."""


def images_of(run_dir: Path) -> dict[str, dict[int, Path]]:
    """The images that a run has made in training, by their kinds ("samples", "trajectory") and steps."""
    found: dict[str, dict[int, Path]] = {}
    own = run_dir.resolve()
    for path in sorted((run_dir / "samples").glob("*.png")):
        if not path.resolve().is_relative_to(own):  # a link to an image outside the run
            continue
        if not path.name.startswith(".") and (match := NAME.fullmatch(path.name)):
            found.setdefault(match[1], {})[int(match[2])] = path
    return dict(sorted(found.items()))


def spread(steps: Sequence[int], number: int) -> list[int]:
    """`number` of some steps, evenly spaced, with the last and, of two and more, the first."""
    if number >= len(steps):
        return list(steps)
    if number == 1:
        return [steps[-1]]
    return [steps[round(i * (len(steps) - 1) / (number - 1))] for i in range(number)]


class Album:
    """Images encoded for a page, the same one once.

    Attributes:
        faults: what could not be read.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._keys: dict[Path, str | None] = {}
        self._encoded: dict[str, str] = {}

    def key(self, path: Path) -> str | None:
        """The name of an image; None if the file is damaged."""
        if path not in self._keys:
            try:
                content = native(path)
            # What Pillow raises for damaged files.
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                self.faults.append(f"{path} cannot be read ({error})")
                self._keys[path] = None
            else:
                name = hashlib.sha256(content).hexdigest()[:16]
                self._keys[path] = name
                self._encoded[name] = base64.b64encode(content).decode()
        return self._keys[path]

    def content(self, kinds: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """The images that some layouts name, as base64 of PNG."""
        names = {name for kind in kinds for run in kind["shown"] for name, _ in run if name is not None}
        return {name: self._encoded[name] for name in sorted(names)}


def native(path: Path) -> bytes:
    """An image as PNG in its own pixels: without the enlargement that it was written with."""
    with Image.open(require_regular(path), formats=["PNG"]) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"it has {image.width} x {image.height} pixels; allowed: {MOST_PIXELS:,} in all")
        pixels = np.asarray(image.convert("RGB"))
    height, width = pixels.shape[:2]
    rows = (pixels[1:] != pixels[:-1]).any((1, 2)).nonzero()[0] + 1
    columns = (pixels[:, 1:] != pixels[:, :-1]).any((0, 2)).nonzero()[0] + 1
    common = math.gcd(height, width, *rows.tolist(), *columns.tolist())  # where neighbours differ, an enlarged one ends
    scale = next(scale for scale in range(64, 0, -1) if common % scale == 0)
    file = io.BytesIO()
    Image.fromarray(pixels[::scale, ::scale]).save(file, "PNG")
    return file.getvalue()


def layout(found: Sequence[Mapping[str, Mapping[int, Path]]], number: int, album: Album) -> list[dict[str, Any]]:
    """Which images are shown: of each kind `number` steps, and for each run and step its newest image by then."""
    kinds = []
    for kind in dict.fromkeys(kind for run in found for kind in run):
        every = sorted({step for run in found for step in run.get(kind, {})})
        steps = spread(every, number)
        shown = []
        for run in found:
            paths = run.get(kind, {})
            newest = [max((own for own in paths if own <= step), default=None) for step in steps]
            shown.append([(None if own is None else album.key(paths[own]), own) for own in newest])
        kinds.append({"kind": kind, "steps": steps, "of": len(every), "shown": shown})
    return kinds


def fitting(
    found: Sequence[Mapping[str, Mapping[int, Path]]], number: int | None, room: int
) -> tuple[list[dict[str, Any]], dict[str, str], list[str]]:
    """The layout of each kind, the images as base64 of PNG by their names, and what could not be read.

    Args:
        found: each run's images.
        number: how many steps are shown; None for as many as have room, and at least one.
        room: bytes of the page.
    """
    album = Album()
    count = number or MOST
    if number is None:  # of many runs, the room for their last images already rules out most of the others
        content = album.content(layout(found, 1, album))
        count = max(1, min(MOST, room // max(1, sum(map(len, content.values())))))
    while True:
        kinds = layout(found, count, album)
        content = album.content(kinds)
        size = sum(map(len, content.values()))
        if number is not None or size <= room or count == 1:
            return kinds, content, album.faults
        shown = max(len(kind["steps"]) for kind in kinds)
        count = max(1, min(shown - 1, shown * room // size))
