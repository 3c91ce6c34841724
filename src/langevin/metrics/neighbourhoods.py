"""Balls and nearest neighbours among samples and a reference: exact, and found once for all metrics that ask."""

import hashlib
from typing import NamedTuple

import torch
from torch import Tensor

from langevin.interrupt import stop_on_signal
from langevin.metrics.screened import Screened, axes_of, centre_of, scale_of


class Found(NamedTuple):
    """What was found of N samples and M reference images.

    Attributes:
        inside: by k, whether each sample lies in a ball of the reference, bool (N,); a ball reaches to the k-th
            nearest neighbour in its own set.
        holding: by k, whether each ball of the reference holds a sample, bool (M,).
        held: by k, how many pairs there are of a sample and a ball of the reference that it lies in.
        recalled: by k, whether each reference image lies in a ball of the samples, bool (M,).
        nearest: which reference image is nearest to each sample, int64 (N,); None where nobody asked.
        distances: of each sample to it, float64 (N,).
        to_others: of that image to its own nearest other, float64 (N,).
    """

    inside: dict[int, Tensor]
    holding: dict[int, Tensor]
    held: dict[int, int]
    recalled: dict[int, Tensor]
    nearest: Tensor | None = None
    distances: Tensor | None = None
    to_others: Tensor | None = None


class Neighbourhoods:
    """The neighbourhoods of one reference, which several metrics of the same samples share.

    Each metric asks in its `begin`; the first that computes finds what all have asked for, and the others are given
    the same. The reference's own radii are kept from round to round.

    Beside the features it needs a copy of them (4 bytes a number; from 512 dimensions on up to a third more), some
    numbers for each image and some blocks, never N times M.

    Args:
        reference: features (M, D).
    """

    def __init__(self, reference: Tensor) -> None:
        self.reference = reference
        self.of_reference: set[int] = set()
        self.of_samples: set[int] = set()
        self.wants_nearest = False
        self._radii: Tensor | None = None
        self._last: tuple[str, Found] | None = None

    def ask(self, of_reference: tuple[int, ...] = (), of_samples: tuple[int, ...] = (), nearest: bool = False) -> None:
        """Say what will be needed.

        Args:
            of_reference: the k of the reference's balls, each less than M.
            of_samples: the k of the samples' balls, each less than N.
            nearest: whether the image nearest to each sample is.
        """
        self.of_reference |= set(of_reference)
        self.of_samples |= set(of_samples)
        self.wants_nearest |= nearest

    def find(self, samples: Tensor) -> Found:
        """What was asked for, of samples (N, D) on the device to work on."""
        asked = f"{samples.shape} {sorted(self.of_reference)} {sorted(self.of_samples)} {self.wants_nearest}"
        digest = hashlib.sha256(asked.encode())
        digest.update(samples.contiguous().cpu().numpy().data)
        if self._last is None or self._last[0] != digest.hexdigest():
            finite = samples.isfinite().all(1)
            found = self._find(samples) if finite.all() else self._among(samples, finite)
            self._last = digest.hexdigest(), found
        return self._last[1]

    def _among(self, samples: Tensor, finite: Tensor) -> Found:
        """The same where some samples, of a model that diverges, are not finite: these are far from everything."""
        if int(finite.sum()) > max(self.of_samples, default=0):
            found = self._find(samples[finite])
        else:  # too few to have balls, so that none of them counts
            finite, total = torch.zeros_like(finite), len(self.reference)
            none, of_none = finite.new_zeros(0), samples.new_zeros(0, dtype=torch.float64)
            found = Found(
                dict.fromkeys(self.of_reference, none),
                {k: finite.new_zeros(total) for k in self.of_reference},
                dict.fromkeys(self.of_reference, 0),
                {k: finite.new_zeros(total) for k in self.of_samples},
                of_none.long(),
                of_none,
                of_none,
            )

        def of_all(values: Tensor, other: float) -> Tensor:
            whole = values.new_full((len(finite),), other)
            whole[finite] = values
            return whole

        inside = {k: of_all(each, 0) for k, each in found.inside.items()}
        if found.nearest is None or found.distances is None or found.to_others is None:
            return found._replace(inside=inside)
        distances, others = of_all(found.distances, torch.inf), of_all(found.to_others, 1)
        return found._replace(inside=inside, nearest=of_all(found.nearest, 0), distances=distances, to_others=others)

    def _find(self, samples: Tensor) -> Found:
        device, reference = samples.device, self.reference.to(samples.device)
        centre = centre_of(reference)
        scale = scale_of((samples, reference), centre)
        axes = axes_of(reference, centre, scale)
        x, y = Screened(samples, centre, scale, axes), Screened(reference, centre, scale, axes)
        wanted = max({1} | self.of_reference)
        if self._radii is None or self._radii.shape[1] < wanted:
            self._radii = y.squared_radii(wanted)
        radii = self._radii.to(device)
        own = x.squared_radii(max(self.of_samples)) if self.of_samples else None
        of_reference = {k: radii[:, k - 1] for k in self.of_reference}
        of_samples = {} if own is None else {k: own[:, k - 1] for k in self.of_samples}
        found = _between(x, y, of_reference, of_samples, self.wants_nearest)
        if found.nearest is None:
            return found
        return found._replace(to_others=radii[found.nearest, 0].sqrt())


def _between(
    x: Screened, y: Screened, of_reference: dict[int, Tensor], of_samples: dict[int, Tensor], wants_nearest: bool
) -> Found:
    """Compare the samples x with the reference y; their squared radii are given by row."""
    device, number, total = x.squares.device, len(x.rows), len(y.rows)

    def no(count: int) -> Tensor:
        return torch.zeros(count, dtype=torch.bool, device=device)

    # By the numbers of the points, until the end; what is nearest is a row of the reference.
    inside, holding = {k: no(number) for k in of_reference}, {k: no(total) for k in of_reference}
    held, recalled = dict.fromkeys(of_reference, 0), {k: no(total) for k in of_samples}
    distances = torch.full((number,), torch.inf, dtype=torch.float64, device=device)
    nearest = torch.zeros(number, dtype=torch.int64, device=device)
    none_x, none_y = (torch.full((len(each.rows),), -torch.inf, device=device).double() for each in (x, y))
    of_reference = {k: radii[y.order] for k, radii in of_reference.items()}
    of_samples = {k: radii[x.order] for k, radii in of_samples.items()}
    largest_y = torch.stack([none_y, *of_reference.values()]).amax(0)
    largest_x = torch.stack([none_x, *of_samples.values()]).amax(0)
    upper = distances.clone()  # of the squared distance to the nearest
    for rows, columns in stop_on_signal(x.block_pairs(y)):
        reach = largest_x[rows]
        if wants_nearest:
            if x.shorts and upper[rows].isinf().any():
                upper[rows] = x.upper_by_short(rows, y, columns, 1)
            reach = torch.maximum(reach, torch.minimum(upper[rows], distances[rows]))
        pairs = x.left_by_short(rows, y, columns, reach, largest_y[columns])
        if pairs is None:
            scores = x.scores(rows, y, columns)
            if wants_nearest:
                upper[rows] = torch.minimum(upper[rows], x.upper(rows, y, columns, scores, 1)[:, 0])
                reach = torch.maximum(largest_x[rows], torch.minimum(upper[rows], distances[rows]))
            pairs = x.left(scores, reach, largest_y[columns])
        if pairs is None:  # few digits tell too little apart here
            squared, error = near = x.near(rows, y, columns)
            lowered = squared - error
            if wants_nearest:
                upper[rows] = torch.minimum(upper[rows], (squared + error).amin(1))
                reach = torch.maximum(largest_x[rows], torch.minimum(upper[rows], distances[rows]))
            pairs = x.pairs((lowered <= reach[:, None]) | (lowered <= largest_y[columns]))
        if pairs is None:  # as where most points are one
            for k, radii in of_reference.items():
                holds = x.within(rows, y, columns, near, radii[columns])
                inside[k][rows] |= holds.any(1)
                holding[k][columns] |= holds.any(0)
                held[k] += int(holds.sum())
            for k, radii in of_samples.items():
                recalled[k][columns] |= x.within(rows, y, columns, near, radii[rows, None]).any(0)
            least = lowered <= torch.minimum(upper[rows], distances[rows])[:, None]
            if not wants_nearest:  # all of them
                least.zero_()
            # Of those that are known to be the same point the first will do.
            known = least & (error == 0)
            order = y.order[columns].expand_as(squared).masked_fill(~known, total)
            kept = torch.zeros_like(known).scatter_(1, order.argmin(1, keepdim=True), True)
            first, second = (least & (kept | ~known)).nonzero(as_tuple=True)
        else:
            first, second = pairs
        i, j = first + rows.start, second + columns.start
        squared = x.exact(i, y, j)
        if pairs is not None:
            # Where a distance equals a radius, the sample or the neighbour may be one image.
            lowered = squared - x.slack(squared)
            for k, radii in of_reference.items():
                holds = lowered <= radii[j]
                inside[k][i[holds]] = True
                holding[k][j[holds]] = True
                held[k] += int(holds.sum())
            for k, radii in of_samples.items():
                recalled[k][j[lowered <= radii[i]]] = True
        if wants_nearest:
            best = torch.full_like(reach, torch.inf)
            best.scatter_reduce_(0, first, squared, "amin")
            is_best = squared == best[first]
            which = torch.full_like(nearest[rows], total)
            which.scatter_reduce_(0, first[is_best], y.order[j[is_best]], "amin")
            # Of equally near ones the first, in whichever order the blocks come.
            closer = (best < distances[rows]) | ((best == distances[rows]) & (which < nearest[rows]))
            nearest[rows] = torch.where(closer, which, nearest[rows])
            distances[rows] = torch.where(closer, best, distances[rows])
    inside = {k: x.by_row(each) for k, each in inside.items()}
    holding, recalled = ({k: y.by_row(each) for k, each in found.items()} for found in (holding, recalled))
    if not wants_nearest:
        return Found(inside, holding, held, recalled)
    return Found(inside, holding, held, recalled, x.by_row(nearest), x.by_row(distances).sqrt())
