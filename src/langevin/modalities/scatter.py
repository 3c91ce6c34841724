"""Vectors as images: points in the plane, drawn as a density."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""An image (H, W, 3)."""

SIDE = 320
"""Pixels along a side of a plot."""
COLOURS = np.array([(255, 255, 255), (198, 219, 239), (107, 174, 214), (33, 113, 181), (8, 48, 107)], float)
"""From no points to many: white over light blue to dark blue, evenly spaced."""
BAR = 2
"""The colour of a histogram's bars, by its place in `COLOURS`."""
GUIDE = 232
"""The grey level of the frame and of the lines through the origin."""
INSIDE = 0.999
"""The share of the points that a limit chosen from them takes in, so that a stray one does not decide it."""
ROUND = (1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
"""What a limit is rounded up to, times a power of ten."""


def scatter(points: NDArray[np.floating], limit: float | None = None, side: int = SIDE) -> Pixels:
    """Draw points as a density: each a small soft disc, darker where there are more, on white.

    The first coordinate goes to the right, the second upwards. Of more than two, the first two are drawn; of one
    alone, a histogram. Points outside of the limits, and such as are not finite, are not drawn.

    Args:
        points: (N, D), D at least 1.
        limit: both axes show [-limit, limit]; None: chosen from the points, a round number.
        side: height and width in pixels.

    Returns:
        uint8 (side, side, 3).
    """
    limit = limit_of(points) if limit is None else limit
    if points.shape[1] == 1:
        image = _bars(points[:, 0], limit, side)
    else:
        image = _coloured(_density(_positions(points[:, :2], limit, side), side))
    return np.rint(np.minimum(image, _guides(side))).astype(np.uint8)


def panels(frames: Sequence[NDArray[np.floating]], limit: float | None = None, side: int = SIDE) -> Pixels:
    """Draw sets of points side by side, such as samples at several times.

    Args:
        frames: (N, D) each, at least one.
        limit: of all of them; None: chosen from the last, which on the way from noise are the samples.
        side: height and width of one, in pixels.

    Returns:
        uint8 (side, W, 3), with a thin gap of white between two.
    """
    limit = limit_of(frames[-1]) if limit is None else limit
    gap = np.full((side, max(1, side // 40), 3), 255, np.uint8)
    parts = [part for frame in frames for part in (gap, scatter(frame, limit, side))]
    return np.concatenate(parts[1:], axis=1)


def limit_of(points: NDArray[np.floating]) -> float:
    """The least round number that is not exceeded by more than one in a thousand of the drawn coordinates (N, D)."""
    drawn = np.abs(points[:, :2])
    drawn = drawn[np.isfinite(drawn)]
    reach = float(np.quantile(drawn, INSIDE)) if len(drawn) else 0.0
    if reach == 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(reach))
    return next((power * factor for factor in ROUND if power * factor >= reach), 10 * power)


def _positions(points: NDArray[np.floating], limit: float, side: int) -> NDArray[np.float64]:
    """Where those of the points (N, 2) are that lie within the limits, as rows and columns of pixels (N', 2).

    A pixel's centre is a whole number.
    """
    across, up = points.astype(np.float64).T
    places = np.stack([limit - up, across + limit], axis=1) * (side / (2 * limit)) - 0.5
    return places[(np.abs(points) <= limit).all(1)]  # of NaN, no comparison holds


def _density(places: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """The sum of the discs about some places (N, 2) at every pixel, (side, side); one is 1 high."""
    # Each point is shared among the four pixels about it. One more on each side takes what falls beyond the edge.
    corner = np.floor(places).astype(np.int64)
    part = places - corner
    counts = np.zeros((side + 2, side + 2))
    for row, column in itertools.product((0, 1), repeat=2):
        share = np.abs(1 - row - part[:, 0]) * np.abs(1 - column - part[:, 1])
        np.add.at(counts, (corner[:, 0] + row + 1, corner[:, 1] + column + 1), share)
    radius = max(1, side // 160)
    disc = np.exp(-((np.arange(-2 * radius, 2 * radius + 1) / radius) ** 2))
    for axis in (0, 1):
        counts = np.apply_along_axis(np.convolve, axis, counts, disc, "same")
    return counts[1:-1, 1:-1]


def _coloured(density: NDArray[np.float64]) -> NDArray[np.float64]:
    """A density (H, W) in `COLOURS`, by its logarithm, so that single points show beside dense places."""
    strength = np.log1p(density)
    drawn = strength[strength > np.log1p(0.1)]
    darkest = max(1.0, float(np.quantile(drawn, 0.99))) if len(drawn) else 1.0
    stops = np.linspace(0, darkest, len(COLOURS))
    return np.stack([np.interp(strength, stops, colour) for colour in COLOURS.T], axis=2)


def _bars(values: NDArray[np.floating], limit: float, side: int) -> NDArray[np.float64]:
    """A histogram of numbers (N,), the highest bar nine tenths of the height."""
    counts, _ = np.histogram(values, max(1, side // 5), (-limit, limit))
    heights = 0.9 * side * counts / max(1, counts.max())
    of_columns = heights[np.arange(side) * len(counts) // side]
    # A pixel that a bar covers in part is coloured in part.
    covered = np.clip(of_columns - np.arange(side)[::-1, None], 0, 1)
    return COLOURS[0] + covered[:, :, None] * (COLOURS[BAR] - COLOURS[0])


def _guides(side: int) -> NDArray[np.float64]:
    lines = np.full((side, side, 1), 255.0)
    places = [0, (side - 1) // 2, side // 2, side - 1]
    lines[places], lines[:, places] = GUIDE, GUIDE
    return lines
