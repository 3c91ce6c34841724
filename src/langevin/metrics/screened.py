"""Points whose far pairs are ruled out in few digits, with a bound of the error, and whose near pairs are exact."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from langevin.features.extractor import full_precision
from langevin.interrupt import stop_on_signal
from langevin.metrics.neighbours import Points, block_size

KIND = torch.float32
"""What is screened in. It changes no result; bfloat16 leaves so many pairs that it was slower."""
FEW = 64
"""Of so many pairs of a block one may be left after screening; of more, the whole block is computed in float64."""
MORE = 8
"""The same after the shortest copies: a pair's next ones take 0.3 microseconds, the whole ones of a block 0.2 s."""
AT_ONCE = 1 << 17
"""Numbers of pairs that are subtracted at once: 1 MB, which stays in a core's cache."""
LEAST = 512
"""Fewer dimensions are multiplied about as fast as the products are compared, so none of them is left out at first."""
SHARES = 16, 4
"""One axis is taken of so many dimensions: to multiply blocks, and then for the pairs that are left."""
HELD = 0.8
"""If the first of the axes hold less of the points' spread, they leave out too much to rule out a pair."""
SOME = 4096
"""Of so many points, about, the centre and the axes are found."""
SPLIT = 16
"""So many of the axes are looked at to bring near points into one block."""
TINY = 1e-28
"""What is lost where numbers underflow, of squared distances at the scale of `scale_of`; more than enough."""


def centre_of(rows: Tensor) -> Tensor:
    """A point amid points (N, D), also where some of them are far out: float64 (D,), the median by dimension."""
    return _some(rows).median(0).values.double()


def scale_of(sets: Iterable[Tensor], centre: Tensor) -> float:
    """A power of two, exact to multiply by, that brings all points (N, D) within about 1 of the centre."""
    most = max(float((part - centre).square().sum(1).amax()) for rows in sets for part in rows.split(1024))
    return 2.0 ** -math.ceil(math.log2(most) / 2) if most > 0 else 1.0


def axes_of(rows: Tensor, centre: Tensor, scale: float) -> Tensor | None:
    """Directions in which points (N, D) mostly differ, orthonormal, float64 (D, K); None where these are too many.

    The first of them are those in which they differ most, as few as are asked for. They need not be the principal ones:
    two steps of the subspace iteration of Halko et al. 2011 (arXiv 0909.4061, algorithm 4.4) come near enough, in a
    fraction of the time of a decomposition.
    """
    dimensions = rows.shape[1]
    if dimensions < LEAST:
        return None
    some = ((_some(rows).to(centre.device).double() - centre) * scale).float()
    lengths = some.square().sum(1).sqrt()
    # One far point would hold most of the spread; brought as near as half of the others, it has no more than its part.
    some *= (lengths.median() / (lengths + TINY)).clamp(max=1)[:, None]
    start = torch.randn(dimensions, dimensions // SHARES[1], generator=torch.Generator().manual_seed(0))
    axes = start.to(centre.device)
    for _ in range(2):
        axes = torch.linalg.qr(some.T @ (some @ axes)).Q
    axes = torch.linalg.qr(axes.double()).Q
    held = (some @ axes[:, : dimensions // SHARES[0]].float()).square().sum() / some.square().sum()
    return axes if held > HELD else None  # nan where all points are one


def _some(rows: Tensor) -> Tensor:
    return rows[:: max(1, len(rows) // SOME)]


def order_of(rows: Tensor, centre: Tensor, axes: Tensor) -> Tensor:
    """An order of points (N, D) in which those of one block are near each other: integers (N,).

    The cells of a k-d tree (Bentley 1975, doi 10.1145/361002.361007): always in two along the axis of most spread, down
    to a block. A search then has near points first, and rules out others by these.
    """
    along = torch.cat([(part.to(centre.device).double() - centre) @ axes[:, :SPLIT] for part in rows.split(1024)])
    order, size = torch.arange(len(rows), device=centre.device), block_size(rows.shape[1])
    cells = [slice(0, len(rows))]
    while cells:
        cell = cells.pop()
        blocks = -(-(cell.stop - cell.start) // size)
        if blocks > 1:
            points = order[cell]
            widest = along[points].var(0).argmax()
            order[cell] = points[along[points, widest].argsort()]
            middle = cell.start + blocks // 2 * size
            cells += [slice(cell.start, middle), slice(middle, cell.stop)]
    return order


class Copy(NamedTuple):
    """Points in few digits.

    Attributes:
        values: of `KIND`, (N, d).
        error: the most that rounding can have taken from a squared distance, a share of ``|x|^2 + |y|^2``.
    """

    values: Tensor
    error: float


class Screened(Points):
    """Points with rough copies, whose scores bound their distances.

    The score of x and y is ``x . y - |x|^2 / 2 - |y|^2 / 2``, minus half the squared distance, raised by the most that
    rounding can have taken from it: a pair whose score is below `threshold` of a distance is further apart than that.
    Rounding is bounded by Cauchy and Schwarz for what the rough copy leaves out, which is measured, and by the standard
    bound of a sum for the product (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1).

    A short copy has a point's part along some axes, and the length of the rest. Lengths of points are the same in it,
    and products are at least those of the points, by Cauchy and Schwarz for the rests: a score of the short copies is
    never below that of the points, and rules out a pair as surely.

    Args:
        rows: a point each, (N, D).
        centre: float64 (D,), see `Points`.
        scale: of the copies, see `scale_of`; the sets that are compared have one.
        axes: those of the short copies, orthonormal, float64 (D, K); the sets that are compared have the same. None for
            no such copies.

    Attributes:
        order: which row each point is, integers (N,): points are numbered by `order_of`, where there are axes.
    """

    def __init__(self, rows: Tensor, centre: Tensor, scale: float, axes: Tensor | None = None) -> None:
        self.order = torch.arange(len(rows), device=centre.device) if axes is None else order_of(rows, centre, axes)
        super().__init__(rows, centre)
        self.scale = scale
        self.halves = self.squares * (scale * scale / 2)
        self.whole, *self.shorts = self._copies(axes)

    def _read(self, part: slice | Tensor) -> Tensor:
        return super()._read(self.order[part])

    def by_row(self, values: Tensor) -> Tensor:
        """Values of the points (N, ...) in the order of the rows."""
        return torch.empty_like(values).index_copy_(0, self.order, values)

    def block_pairs(self, other: "Screened") -> list[tuple[slice, slice]]:
        """All pairs of a block and another set's, or of two of one set; with axes, those of the nearest means first."""
        rows, columns = (
            torch.triu_indices(len(self.blocks), len(self.blocks), 1)
            if self is other
            else torch.cartesian_prod(torch.arange(len(self.blocks)), torch.arange(len(other.blocks))).T
        )
        if self.shorts:
            own, others = (
                torch.stack([each.shorts[0].values[part].mean(0) for part in each.blocks]) for each in (self, other)
            )
            order = (own[rows] - others[columns]).square().sum(1).argsort().cpu()
            rows, columns = rows[order], columns[order]
        return [(self.blocks[i], other.blocks[j]) for i, j in zip(rows.tolist(), columns.tolist(), strict=True)]

    def _copies(self, axes: Tensor | None) -> list[Copy]:
        """The whole copy and, with axes, one by each of `SHARES`."""
        counts = [] if axes is None else [self.dimensions // share for share in SHARES]
        copies = [
            torch.empty(len(self.rows), size, dtype=KIND, device=self.centre.device)
            for size in (self.dimensions, *(count + 1 for count in counts))
        ]
        lost = [0.0] * len(copies)  # of a point's length, the largest share that its copy leaves out
        for part in self.blocks:
            block = self.block(part) * self.scale
            forms = [block] if axes is None else [block, *self._shortened(block, block @ axes, counts)]
            for i, (copy, form) in enumerate(zip(copies, forms, strict=True)):
                copy[part] = form
                rest = (form - copy[part]).square().sum(1) / (form.square().sum(1) + TINY)
                lost[i] = max(lost[i], float(rest.amax().sqrt()))
        return [Copy(copy, self._error(copy.shape[1], share)) for copy, share in zip(copies, lost, strict=True)]

    def _error(self, size: int, lost: float) -> float:
        single = torch.finfo(torch.float32).eps
        # Twice the bound of sums in float32; shorter types are summed so too, and rounded once more.
        product = size * single + (0 if torch.float32 is KIND else torch.finfo(KIND).eps)
        # Of |x|^2 + |y|^2, for a squared distance; the last terms are of the sums of three in `scores`, and of float64.
        return lost * (2 + lost) + (1 + lost) ** 2 * product + 8 * single + self._double

    def _shortened(self, block: Tensor, along: Tensor, counts: list[int]) -> Iterator[Tensor]:
        """By each count, points (B, D) along so many axes, and the length of the rest: (B, count + 1)."""
        squares = block.square().sum(1)
        for count in counts:
            part = along[:, :count]
            # Rather too long than too short, by what rounding in float64 can take from it.
            rest = ((squares - part.square().sum(1)).clamp(min=0) + self._double * squares).sqrt()
            yield torch.cat([part, rest[:, None]], 1)

    @property
    def _double(self) -> float:
        """The most that rounding in float64 can take from a squared length or a product, with the axes' own."""
        return 8 * self.dimensions * torch.finfo(torch.float64).eps

    def scores(self, rows: slice, other: "Screened", columns: slice, short: bool = False) -> Tensor:
        """The scores of two blocks, float32; a point's with itself is -inf."""
        own, others = (self.shorts[0], other.shorts[0]) if short else (self.whole, other.whole)
        error = max(own.error, others.error)
        with full_precision(own.values.device):
            scores = (own.values[rows] @ others.values[columns].T).float()
        scores -= (self.halves[rows, None] * (1 - error) - TINY).float()
        scores -= (other.halves[columns] * (1 - error) - TINY).float()
        if self is other and rows == columns:
            scores.fill_diagonal_(-torch.inf)
        return scores

    def threshold(self, squared: Tensor) -> Tensor:
        """The least score, float32, that a pair at these squared distances can have; inf of -inf, where none counts."""
        least = (squared * (-self.scale * self.scale / 2 * (1 + 1e-6)) - TINY).float()
        return least.clamp_(min=torch.finfo(torch.float32).min)  # a point itself has a score below this

    def upper(self, rows: slice, other: "Screened", columns: slice, scores: Tensor, k: int) -> Tensor:
        """Upper bounds of the squared distances to the nearest k of a block, float64 (B, k); inf for lacking ones."""
        k_here = min(k, scores.shape[1])
        best, which = scores.topk(k_here) if k_here > 1 else scores.max(1, keepdim=True)
        error = max(self.whole.error, other.whole.error)
        width = 2 * error * (self.halves[rows, None] + other.halves[columns][which]) + 4 * TINY
        bound = 2 * (width - best).clamp(min=0) / (self.scale * self.scale) * (1 + 1e-6)
        return torch.nn.functional.pad(bound, (0, k - k_here), value=torch.inf)

    def upper_by_short(self, rows: slice, other: "Screened", columns: slice, k: int) -> Tensor:
        """Upper bounds of the squared distances to the k-th nearest of a block, float64 (B,); inf where it lacks.

        The largest distance to those k that seem nearest by the short copies.
        """
        scores = self.scores(rows, other, columns, short=True)
        best, which = scores.topk(min(k, scores.shape[1]))
        first = torch.arange(len(best), device=best.device).repeat_interleave(best.shape[1])
        squared = self.exact(first + rows.start, other, which.flatten() + columns.start).view_as(best)
        missing = best.isneginf().any(1) | (best.shape[1] < k)
        return squared.amax(1).masked_fill_(missing, torch.inf)

    def pairs(self, mask: Tensor, few: int | None = None) -> tuple[Tensor, Tensor] | None:
        """The rows and columns of what a mask (B, C) selects; None where that is too much to be done by pairs."""
        if mask.device.type == "cpu":  # six times as fast as torch's
            flat = torch.from_numpy(mask.numpy().reshape(-1).nonzero()[0])
        else:
            flat = mask.flatten().nonzero().squeeze(1)
        if len(flat) > _most(len(mask), mask.shape[1], few or FEW):
            return None
        return flat // mask.shape[1], flat % mask.shape[1]

    def left(
        self, scores: Tensor, of_rows: Tensor, of_columns: Tensor, few: int | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """The pairs that may be as near as one of both reaches, by squared distances (B,) and (C,); see `pairs`."""
        mask = scores >= self.threshold(of_rows)[:, None]
        mask |= scores >= self.threshold(of_columns)
        return self.pairs(mask, few)

    def left_by_short(
        self, rows: slice, other: "Screened", columns: slice, of_rows: Tensor, of_columns: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """The same of two blocks by their short copies, one after the other; None without these, too."""
        if not self.shorts:
            return None
        found = self.left(self.scores(rows, other, columns, short=True), of_rows, of_columns, MORE)
        if found is None:
            return None
        first, second = found
        least = torch.minimum(self.threshold(of_rows)[first], self.threshold(of_columns)[second])
        kept = self.scores_of(first + rows.start, other, second + columns.start) >= least
        return (first[kept], second[kept]) if kept.sum() <= _most(len(of_rows), len(of_columns), FEW) else None

    def scores_of(self, first: Tensor, other: "Screened", second: Tensor) -> Tensor:
        """The scores of pairs by the longer of the short copies, float32."""
        own, others = self.shorts[-1], other.shorts[-1]
        share = 1 - max(own.error, others.error)
        size = max(1, AT_ONCE // own.values.shape[1])
        products = [
            own.values.index_select(0, i).float().mul_(others.values.index_select(0, j)).sum(1)
            for i, j in zip(first.split(size), second.split(size), strict=True)
        ]
        lengths = ((self.halves[first] + other.halves[second]) * share - 2 * TINY).float()
        return (torch.cat(products) if products else lengths) - lengths

    def exact(self, first: Tensor, other: "Screened", second: Tensor) -> Tensor:
        """Squared distances of pairs by the numbers of their points, float64, by differences: of equal points 0."""
        size = max(1, AT_ONCE // self.dimensions)
        parts = [
            self._read(i).sub_(other._read(j)).square_().sum(1)  # what is read by numbers is a copy
            for i, j in zip(first.split(size), second.split(size), strict=True)
        ]
        return torch.cat(parts) if parts else self.squares.new_zeros(0)

    def slack(self, squares: Tensor) -> Tensor:
        """The most that rounding in float64 can have added to sums of squares, which these are."""
        return 2 * self.dimensions * torch.finfo(torch.float64).eps * squares

    def near(self, rows: slice, other: "Screened", columns: slice) -> tuple[Tensor, Tensor]:
        """Squared distances of two blocks, and the most by which rounding can have changed them: both (B, C).

        They are computed about a point amid the second block, so that little is lost of blocks that are far out, and
        nothing of points that are this one: both are 0 of these.
        """
        x, y = self._read(rows), other._read(columns)
        centre = y.median(0).values
        x, y = x - centre, y - centre
        squares = x.square().sum(1, keepdim=True) + y.square().sum(1)
        return torch.addmm(squares, x, y.T, alpha=-2), self.slack(squares)

    def within(
        self, rows: slice, other: "Screened", columns: slice, near: tuple[Tensor, Tensor], reach: Tensor
    ) -> Tensor:
        """Which pairs of two blocks are no further apart than squared distances, broadcastable to (B, C): a mask.

        Of equal ones rounding may have added to either, so that these count. Those that `near` cannot tell are computed
        by differences.
        """
        squared, error = near
        holds = squared + error <= reach
        first, second = ((squared - error <= reach) & ~holds).nonzero(as_tuple=True)
        exact = self.exact(first + rows.start, other, second + columns.start)
        holds[first, second] = exact - self.slack(exact) <= reach.expand_as(squared)[first, second]
        return holds

    def squared_radii(self, k: int) -> Tensor:
        """Squared distances of each row to its k nearest others, increasing, float64 (N, k); k is less than N."""
        nearest = self.squares.new_full((len(self.rows), k), torch.inf)
        for rows in stop_on_signal(self.blocks):  # first, so that all points have a bound
            found, none = None, torch.full_like(nearest[rows, 0], -torch.inf)
            if self.shorts:
                found = self.left_by_short(rows, self, rows, self.upper_by_short(rows, self, rows, k), none)
            if found is None:
                scores = self.scores(rows, self, rows)
                found = self.left(scores, self.upper(rows, self, rows, scores, k)[:, -1], none)
            self._count_in(nearest, rows, rows, found)
        for rows, columns in stop_on_signal(self.block_pairs(self)):
            reach = nearest[rows, -1], nearest[columns, -1]
            found = self.left_by_short(rows, self, columns, *reach)
            if found is None:
                found = self.left(self.scores(rows, self, columns), *reach)
            self._count_in(nearest, rows, columns, found)
        return self.by_row(nearest)

    def _count_in(self, nearest: Tensor, rows: slice, columns: slice, found: tuple[Tensor, Tensor] | None) -> None:
        if found is None:
            found = self._nearest_in(nearest, rows, columns)
        first, second = found
        squared = self.exact(first + rows.start, self, second + columns.start)
        _merge(nearest[rows], first, squared)
        if rows != columns:
            _merge(nearest[columns], second, squared)

    def _nearest_in(self, nearest: Tensor, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        """The pairs of a block that may be among the nearest, by float64."""
        squared, error = self.near(rows, self, columns)
        if rows == columns:
            squared.fill_diagonal_(torch.inf)
        few = [min(nearest.shape[1], size) for size in squared.shape]
        upper, lowered = squared + error, squared - error
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
        # As where most points are one: of those that are known without error any will do, but all of the others.
        known, kept = mask & (error == 0), torch.zeros_like(mask)
        for dim in (0, 1):
            kept.scatter_(dim, squared.masked_fill(~known, torch.inf).topk(few[dim], dim, largest=False).indices, True)
        flat = (mask & (kept | ~known)).flatten().nonzero().squeeze(1)
        return flat // mask.shape[1], flat % mask.shape[1]


def _most(rows: int, columns: int, few: int) -> int:
    return max(rows * columns // few, 16 * rows)  # a few neighbours of each fit into a small block


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
