"""Points whose far pairs are ruled out in few digits, with a bound of the error, and whose near pairs are exact."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from langevin.features.extractor import full_precision
from langevin.interrupt import stop_on_signal
from langevin.metrics.neighbours import Points

KIND = torch.float32
"""What is screened in. It changes no result; bfloat16 leaves so many pairs that it was slower."""
FEW = 64
"""Of so many pairs of a block one may be left after screening; of more, the whole block is computed in float64."""
AT_ONCE = 1 << 17
"""Numbers of pairs that are subtracted at once: 1 MB, which stays in a core's cache."""
TINY = 1e-28
"""What is lost where numbers underflow, of squared distances at the scale of `scale_of`; more than enough."""


def scale_of(sets: Iterable[Tensor], centre: Tensor) -> float:
    """A power of two, exact to multiply by, that brings all points (N, D) within about 1 of the centre."""
    most = max(float((part - centre).square().sum(1).amax()) for rows in sets for part in rows.split(1024))
    return 2.0 ** -math.ceil(math.log2(most) / 2) if most > 0 else 1.0


class Screened(Points):
    """Points with a rough copy, whose scores bound their distances.

    The score of x and y is ``x . y - |x|^2 / 2 - |y|^2 / 2``, minus half the squared distance, raised by the most that
    rounding can have taken from it: a pair whose score is below `threshold` of a distance is further apart than that.
    Rounding is bounded by Cauchy and Schwarz for what the rough copy leaves out, which is measured, and by the standard
    bound of a sum for the product (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1).

    Args:
        rows: a point each, (N, D).
        centre: float64 (D,), see `Points`.
        scale: of the copy, see `scale_of`; the sets that are compared have one.
    """

    def __init__(self, rows: Tensor, centre: Tensor, scale: float) -> None:
        super().__init__(rows, centre)
        self.scale = scale
        self.copy = torch.empty(len(rows), self.dimensions, dtype=KIND, device=centre.device)
        lost = 0.0  # of a point's length, the largest share that its copy leaves out
        for part in self.blocks:
            block = self.block(part) * scale
            self.copy[part] = block
            rest = (block - self.copy[part]).square().sum(1) / (block.square().sum(1) + TINY)
            lost = max(lost, float(rest.amax().sqrt()))
        single = torch.finfo(torch.float32).eps
        # Twice the bound of sums in float32; shorter types are summed so too, and rounded once more.
        product = self.dimensions * single + (0 if torch.float32 is KIND else torch.finfo(KIND).eps)
        # Of |x|^2 + |y|^2, for a squared distance; the last term is of the sums of three in `scores`.
        self.error = lost * (2 + lost) + (1 + lost) ** 2 * product + 8 * single
        self.halves = self.squares * (scale * scale / 2)

    def scores(self, rows: slice, other: "Screened", columns: slice) -> Tensor:
        """The scores of two blocks, float32; a point's with itself is -inf."""
        error = max(self.error, other.error)
        with full_precision(self.copy.device):
            scores = (self.copy[rows] @ other.copy[columns].T).float()
        scores -= (self.halves[rows, None] * (1 - error) - TINY).float()
        scores -= (other.halves[columns] * (1 - error) - TINY).float()
        if self is other and rows == columns:
            scores.fill_diagonal_(-torch.inf)
        return scores

    def threshold(self, squared: Tensor) -> Tensor:
        """The least score, float32, that a pair at these squared distances can have."""
        least = squared * (-self.scale * self.scale / 2)
        return (least - least.abs() * 1e-6 - TINY).float()

    def upper(self, rows: slice, other: "Screened", columns: slice, scores: Tensor, k: int) -> Tensor:
        """Upper bounds of the squared distances to the nearest k of a block, float64 (B, k); inf for lacking ones."""
        k_here = min(k, scores.shape[1])
        best, which = scores.topk(k_here) if k_here > 1 else scores.max(1, keepdim=True)
        error = max(self.error, other.error)
        width = 2 * error * (self.halves[rows, None] + other.halves[columns][which]) + 4 * TINY
        bound = 2 * (width - best).clamp(min=0) / (self.scale * self.scale) * (1 + 1e-6)
        return torch.nn.functional.pad(bound, (0, k - k_here), value=torch.inf)

    def pairs(self, mask: Tensor) -> tuple[Tensor, Tensor] | None:
        """The rows and columns of what a mask (B, C) selects; None where that is too much to be done by pairs."""
        if mask.device.type == "cpu":  # six times as fast as torch's
            flat = torch.from_numpy(mask.numpy().reshape(-1).nonzero()[0])
        else:
            flat = mask.flatten().nonzero().squeeze(1)
        if len(flat) > max(mask.numel() // FEW, 16 * len(mask)):  # a few neighbours of each fit into a small block
            return None
        return flat // mask.shape[1], flat % mask.shape[1]

    def exact(self, first: Tensor, other: "Screened", second: Tensor) -> Tensor:
        """Squared distances of pairs by the numbers of their points, float64, by differences: of equal points 0."""
        size = max(1, AT_ONCE // self.dimensions)
        parts = [
            (self._read(i) - other._read(j)).square_().sum(1)
            for i, j in zip(first.split(size), second.split(size), strict=True)
        ]
        return torch.cat(parts) if parts else self.squares.new_zeros(0)

    def slack(self, *squares: Tensor) -> Tensor:
        """The most that rounding in float64 can have added to sums of squares, which these are."""
        return 2 * self.dimensions * torch.finfo(torch.float64).eps * torch.as_tensor(sum(squares))

    def squared_radii(self, k: int) -> Tensor:
        """Squared distances of each point to its k nearest others, increasing, float64 (N, k); k is less than N."""
        nearest = self.squares.new_full((len(self.rows), k), torch.inf)
        for rows in stop_on_signal(self.blocks):  # first, so that all points have a bound
            scores = self.scores(rows, self, rows)
            bound = self.upper(rows, self, rows, scores, k)[:, -1]
            mask = scores >= self.threshold(bound)[:, None]
            self._count_in(nearest, rows, rows, scores, mask.fill_diagonal_(False))
        for i, rows in enumerate(self.blocks):
            for columns in stop_on_signal(self.blocks[i + 1 :]):
                scores = self.scores(rows, self, columns)
                mask = scores >= self.threshold(nearest[rows, -1])[:, None]
                mask |= scores >= self.threshold(nearest[columns, -1])
                self._count_in(nearest, rows, columns, scores, mask)
        return nearest

    def _count_in(self, nearest: Tensor, rows: slice, columns: slice, scores: Tensor, mask: Tensor) -> None:
        found = self.pairs(mask)
        if found is None:
            found = self._nearest_in(nearest, rows, columns)
        first, second = found
        squared = self.exact(first + rows.start, self, second + columns.start)
        _merge(nearest[rows], first, squared)
        if rows != columns:
            _merge(nearest[columns], second, squared)

    def _nearest_in(self, nearest: Tensor, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        """The pairs of a block that may be among the nearest, by float64."""
        squared = self.squared_distances(rows, self, columns)
        if rows == columns:
            squared.fill_diagonal_(torch.inf)
        added = self.slack(self.squares[rows, None], self.squares[columns])
        few = [min(nearest.shape[1], size) for size in squared.shape]
        upper, lowered = squared + added, squared - added
        mask = torch.zeros_like(squared, dtype=torch.bool)
        for dim, points in ((1, rows), (0, columns)):
            k = few[dim]
            reach = nearest[points, -1]
            if k == nearest.shape[1]:
                reach = torch.minimum(reach, upper.kthvalue(k, dim).values)
            mask |= lowered <= reach.unsqueeze(dim)
        if rows == columns:
            mask.fill_diagonal_(False)
        found = self.pairs(mask)
        if found is not None:
            return found
        # As where most points are one: those that are nearest up to rounding.
        mask.fill_(False)
        for dim in (0, 1):
            mask.scatter_(dim, squared.topk(few[dim], dim, largest=False).indices, True)
        if rows == columns:
            mask.fill_diagonal_(False)
        flat = mask.flatten().nonzero().squeeze(1)
        return flat // mask.shape[1], flat % mask.shape[1]


def _merge(nearest: Tensor, points: Tensor, squared: Tensor) -> None:
    """Put the squared distances of some of the points among those of the nearest so far (B, k), in place."""
    size, k = nearest.shape
    order = squared.argsort()
    order = order[points[order].argsort(stable=True)]
    points, squared = points[order], squared[order]
    counts = points.bincount(minlength=size)
    place = torch.arange(len(points), device=points.device) - (counts.cumsum(0) - counts)[points]
    fresh = torch.full_like(nearest, torch.inf)
    kept = place < k
    fresh[points[kept], place[kept]] = squared[kept]
    nearest.copy_(torch.cat([nearest, fresh], 1).topk(k, largest=False).values)
