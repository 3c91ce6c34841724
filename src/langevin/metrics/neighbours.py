"""Exact nearest neighbours, in blocks: in memory of N + M, not of N times M."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin.interrupt import stop_on_signal

BLOCK = 2048
"""Points of either set whose distances are in memory at once, 34 MB; fewer where points are wider than that."""


def block_size(dimensions: int) -> int:
    """How many points of so many dimensions a block has."""
    return max(1, min(BLOCK, BLOCK * BLOCK // dimensions))


class Points:
    """A set of points, read in blocks as float64.

    Args:
        rows: a point each, (N, ...) of any type; an array may be a memory map.
        centre: float64, broadcastable to a flattened row, on the device to work on; it is subtracted from all points:
            distances do not depend on it, their rounding errors do. Sets that are compared have one centre.
    """

    def __init__(self, rows: Tensor | NDArray[np.uint8], centre: Tensor) -> None:
        self.rows = rows
        self.centre = centre
        self.dimensions = int(np.prod(rows.shape[1:]))
        size = block_size(self.dimensions)
        self.blocks = [slice(start, start + size) for start in range(0, len(rows), size)]
        self.squares = torch.cat([self.block(part).square().sum(1) for part in self.blocks])

    def block(self, part: slice) -> Tensor:
        """Some points, centred: float64 (B, D)."""
        return self._read(part) - self.centre

    def _read(self, part: slice | Tensor) -> Tensor:
        if isinstance(self.rows, Tensor):
            # Of integers, twice as fast as by indexing.
            rows = self.rows[part] if isinstance(part, slice) else self.rows.index_select(0, part)
        else:  # copied, because torch must not share memory with a read-only memory map
            rows = torch.from_numpy(np.array(self.rows[part if isinstance(part, slice) else part.cpu().numpy()]))
        return rows.to(self.centre.device).flatten(1).double()

    def squared_distances(self, rows: slice, other: "Points", columns: slice) -> Tensor:
        """``|x - y|^2`` of two blocks."""
        squares = self.squares[rows, None] + other.squares[columns]
        return squares.addmm_(self.block(rows), other.block(columns).T, alpha=-2)

    def nearest(self, other: "Points", k: int) -> tuple[Tensor, Tensor]:
        """The k nearest points of another set to each point of this one.

        Args:
            other: of at least k points.
            k: at least 1.

        Returns:
            Their distances, float64 (N, k), increasing, and which ones they are, int64 (N, k).
        """
        found = [self._nearest(rows, other, k) for rows in self.blocks]
        distances, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
        return distances, indices

    def _nearest(self, rows: slice, other: "Points", k: int) -> tuple[Tensor, Tensor]:
        points = self.block(rows)
        nearest = points.new_full((len(points), k), torch.inf)
        indices = torch.zeros_like(nearest, dtype=torch.int64)
        for columns in stop_on_signal(other.blocks):
            distances = torch.cat([nearest, self.squared_distances(rows, other, columns)], dim=1)
            numbers = torch.arange(len(other.rows), device=points.device)[columns].expand(len(points), -1)
            nearest, chosen = distances.topk(k, largest=False)
            indices = torch.cat([indices, numbers], dim=1).gather(1, chosen)
        # By differences, so that a copy is at exactly 0 despite the rounding above.
        points = self._read(rows)
        exact = torch.stack([(points - other._read(column)).square().sum(1) for column in indices.T], dim=1)
        distances, order = exact.sqrt().sort(dim=1)
        return distances, indices.gather(1, order)
