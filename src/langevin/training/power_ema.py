"""EMAs of a power-function profile, and what is made of their snapshots after training (EDM2)."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from torch import Tensor, nn

from langevin.errors import OptionError, UserError
from langevin.training.ema import EMA, WIDTH, average
from langevin.weights import SAFETENSORS, read_weights

Numbers = NDArray[np.float64]
SNAPSHOTS = "snapshots"
"""The folder of the snapshots in that of the run."""
WIDEST = 0.28
"""The greatest relative width: that of the plain mean of all steps is 1 / sqrt(12) = 0.289."""
TOLERANCE = 0.05
"""How far a combination of profiles may be off the one asked for, in the L2 norm, relative to its own."""


class PowerEMA(EMA):
    """EMAs whose memory grows with the training, so that one spans the same fraction of it at any step.

    At step t, the weights of step s count as ``p(s) = (gamma + 1) s^gamma / t^(gamma + 1)``: the random initial weights
    do not count at all. A snapshot of all EMAs is stored at times. An EMA of any other width is, to a good
    approximation, a linear combination of the snapshots, so that the width is chosen when training is done, see
    `post_hoc`.

    Source: EDM2 (Karras et al. 2024, arXiv 2312.02696), section 3 and algorithms 2 and 3. Snapshots here are float32.

    Args:
        network: the network to average.
        widths: relative widths of the EMAs that are kept: the standard deviation of p, as a fraction of t; in
            (0, 0.28]. Two are enough.
        width: which of them is validated and sampled from; None: the first.
        snapshot_every: optimizer steps between two snapshots.

    Raises:
        UserError: when a width leaves its range, or is given twice, or `width` is none of `widths`.
    """

    snapshot_every: int

    def __init__(
        self,
        network: nn.Module,
        widths: Sequence[float] = (0.05, 0.10),
        width: float | None = None,
        snapshot_every: Annotated[int, Ge(1)] = 1000,
    ) -> None:
        if not widths or len(set(widths)) < len(widths) or not all(0 < each <= WIDEST for each in widths):
            text = f"is {list(widths)}; allowed: at least one, all different, above 0, up to {WIDEST}"
            raise OptionError("widths", text)
        if width is not None and width not in widths:
            text = f"is {width}; allowed: one of widths, {', '.join(map(str, widths))}, or null"
            raise OptionError("width", text)
        super().__init__(network)
        self.snapshot_every = snapshot_every
        self.width = widths[0] if width is None else width
        self.widths = (self.width, *(each for each in widths if each != self.width))
        self.trained = [name for name, weight in network.named_parameters() if weight.requires_grad]
        # Frozen weights, and buffers, which are not averaged, are there once.
        of_network = dict(self.network.named_parameters()) | dict(self.network.named_buffers())
        once = [tensor for name, tensor in of_network.items() if name not in self.trained]
        others = [copy.deepcopy(self.network, {id(tensor): tensor for tensor in once}) for _ in self.widths[1:]]
        self.others = nn.ModuleList(others)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """See `EMA`: of `self.widths`."""
        return (self.network, *self.others)

    def decay(self, step: int, batch_size: int) -> float:
        """See `EMA`."""
        return decay(self.width, step)

    @torch.no_grad()
    def update(self, network: nn.Module, step: int, batch_size: int) -> None:
        """See `EMA`."""
        super().update(network, step, batch_size)
        for width, other in zip(self.widths[1:], self.others, strict=True):
            average(other, network, decay(width, step))

    def snapshot(self) -> dict[str, Tensor]:
        """See `EMA`: the trained weights of each width."""
        found: dict[str, Tensor] = {}
        for width, kept in zip(self.widths, self.networks, strict=True):
            weights = dict(kept.named_parameters())
            found |= {f"{width}.{name}": weights[name].detach() for name in self.trained}
        return found

    def post_hoc(self, width: float, step: int, held: Mapping[str, Tensor], run_dir: Path) -> dict[str, Tensor]:
        """See `EMA`.

        The EMAs of the checkpoint count as the last snapshot, so that any checkpoint of the run will do, and a width
        that the run has kept is taken as it is.

        Raises:
            UserError: also when a snapshot is missing, damaged or of other weights, or the snapshots cannot be combined
                to that width.
        """
        prefixes = ["network.", *(f"others.{place}." for place in range(len(self.widths) - 1))]
        last = {width: named(held, prefix) for width, prefix in zip(self.widths, prefixes, strict=True)}
        if not all(last.values()):
            text = "allowed: null, since the checkpoint holds one EMA alone; take one that the run has saved itself"
            raise OptionError(WIDTH, f"is {width}; {text}")
        if width in last:
            return last[width]
        own = last[self.width]
        steps = range(self.snapshot_every, step, self.snapshot_every)
        of_steps = (snapshot_of(run_dir, each) for each in steps)  # the checkpoint is not trusted: there may be no end
        if (missing := next((each for each in of_steps if not each.is_file()), None)) is not None:
            text = f"of the {len(steps)} snapshots before step {step} there is no {missing}"
            raise OptionError(WIDTH, f"is {width}; {text}; allowed without them: {', '.join(map(str, self.widths))}")
        if not steps:
            text = f"there is no snapshot before step {step}, since ema.snapshot_every is {self.snapshot_every}"
            raise OptionError(WIDTH, f"is {width}; {text}; allowed: {', '.join(map(str, self.widths))}")
        ends = np.repeat([*steps, step], len(self.widths)).astype(np.float64)
        profiles = ends, np.tile([exponent(each) for each in self.widths], len(steps) + 1)
        parts = iter(combination(width, step, *profiles).reshape(len(steps) + 1, -1))
        sums: dict[str, Tensor] = {}
        for each, of_step in zip(steps, parts, strict=False):
            place = snapshot_of(run_dir, each)
            weights = read_weights(place)
            for kept, part in zip(self.widths, of_step, strict=True):
                add(sums, named(weights, f"{kept}."), part, own, place)
        for kept, part in zip(self.widths, next(parts), strict=True):
            add(sums, {name: tensor for name, tensor in last[kept].items() if name in sums}, part, own, run_dir)
        return {name: total.to(own[name].dtype) for name, total in sums.items()}


def snapshot_of(run_dir: Path, step: int) -> Path:
    """The file of the snapshot of a step."""
    return run_dir / SNAPSHOTS / f"step_{step:08d}{SAFETENSORS}"


def named(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What of a state has a prefix, by the names without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def add(
    sums: dict[str, Tensor], weights: Mapping[str, Tensor], part: float, like: Mapping[str, Tensor], place: Path
) -> None:
    """Add a part of some weights, in float64.

    Args:
        sums: what is added to, by name.
        weights: by the same names.
        part: how much they count.
        like: tensors of the right shapes, by names.
        place: where the weights are from.

    Raises:
        UserError: when their names or shapes are others.
    """
    known = all(name in like and like[name].shape == tensor.shape for name, tensor in weights.items())
    if not weights or not known or (sums and sums.keys() != weights.keys()):
        raise UserError(f"{WIDTH}: {place} is no snapshot of this run's EMAs; put back its own, or leave {WIDTH} out")
    for name, tensor in weights.items():
        scaled = tensor.double() * part
        sums[name] = sums[name] + scaled if name in sums else scaled


def exponent(width: float) -> float:
    """The exponent gamma of the profile of a relative width in (0, 0.28].

    ``width^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3))`` has one root above 0. Source: EDM2, section 3.1 and
    appendix C.2.
    """
    inverse = width**-2
    return float(np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse]).real.max())


def decay(width: float, step: int) -> float:
    """The decay at optimizer step `step` (1 is the first) of the EMA of a relative width."""
    return float((1 - 1 / step) ** (exponent(width) + 1))


def products(ends: Numbers, gammas: Numbers, end: Numbers, gamma: Numbers) -> Numbers:
    """The inner products of power-function profiles ``p(s) = (gamma + 1) s^gamma / end^(gamma + 1)`` on [0, end].

    Source: EDM2, appendix C.3. The arguments are broadcast against each other.
    """
    later, of_later = np.maximum(ends, end), np.where(ends < end, gamma, gammas)
    scale = (gammas + 1) * (gamma + 1) / (gammas + gamma + 1)
    return np.asarray(scale * (np.minimum(ends, end) / later) ** of_later / later)


def combinations(widths: Numbers, step: int, ends: Numbers, gammas: Numbers) -> tuple[Numbers, Numbers]:
    """How profiles are to be combined for those of relative widths at a step.

    Least squares of the profiles, by their normal equations. Source: EDM2, algorithm 3.

    Args:
        widths: the relative widths (W,), in (0, 0.28].
        step: where their profiles end.
        ends: where the profiles (N,) end: steps.
        gammas: their exponents (N,).

    Returns:
        the coefficients (N, W), of sum 1; and how far each combination is off (W,), see `TOLERANCE`.
    """
    wanted, end = np.array([exponent(float(each)) for each in widths]), np.array(float(step))
    matrix = products(ends[:, None], gammas[:, None], ends[None], gammas[None])
    right = products(ends[:, None], gammas[:, None], end, wanted[None])
    parts = np.linalg.solve(matrix, right).astype(np.float64)
    parts = np.asarray(parts / parts.sum(0), np.float64)
    squares = products(end, wanted, end, wanted)
    left = squares - 2 * (right * parts).sum(0) + (parts * (matrix @ parts)).sum(0)
    return parts, np.asarray(np.sqrt(np.maximum(left, 0) / squares))


def combination(width: float, step: int, ends: Numbers, gammas: Numbers) -> Numbers:
    """The coefficients (N,) for one width, see `combinations`.

    Raises:
        UserError: when the combination is no such profile: more than `TOLERANCE` off.
    """
    grid = np.arange(1, 1 + round(1000 * WIDEST)) / 1000
    if 0 < width <= WIDEST:
        parts, off = combinations(np.array([width]), step, ends, gammas)
        if off[0] <= TOLERANCE:
            return np.asarray(parts[:, 0])
    near = grid[combinations(grid, step, ends, gammas)[1] <= TOLERANCE]
    among = f"about {near[0]:g} to {near[-1]:g}" if len(near) else "those of ema.widths"
    text = f"{among}, to which the snapshots before step {step} can be combined"
    raise OptionError(WIDTH, f"is {width}; allowed: {text}")
