"""How far the methods of restoration are from the exact posterior of a correlated Gaussian, with its exact denoiser.

Usage: ``python -m experiments.restoration.gaussian [--number=2000] [--steps=10,50,250] [--operator=mask]``. It prints
a table for each operator. A cell has the worst error of the posterior's mean, in its standard deviations, and the
smallest and the greatest ratio of the samples' standard deviation to the posterior's, over the directions that are not
measured exactly.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import torch
from experiments.exact_gaussian import COV, MEAN, CorrelatedGaussian, matrix_of, posterior

from langevin.diffusion.draws import SampleDraws
from langevin.diffusion.schedules.linear import Linear
from langevin.restoration.ddnm import DDNM
from langevin.restoration.dps import DPS
from langevin.restoration.ilvr import ILVR
from langevin.restoration.mmps import MMPS
from langevin.restoration.operators.average import Average
from langevin.restoration.operators.box import BoxMask
from langevin.restoration.operators.operator import Operator
from langevin.restoration.pigdm import PiGDM
from langevin.restoration.repaint import RePaint
from langevin.restoration.restoration import Measurement, Restoration
from langevin.samplers.ancestral import Ancestral
from langevin.samplers.ddim import DDIM
from langevin.samplers.sampler import Sampler
from langevin.samplers.timestep_spacing import QuadraticSpacing

SHAPE = (1, 2, 2)
ORIGINAL = (0.5, -0.6, 0.4, -0.2)
"""What is measured."""
NOISES = (0.0, 0.1)
OPERATORS: dict[str, Operator] = {
    "mask": BoxMask(height=0.5, width=1.0, top=0.5),
    "average": Average(2),
}
"""The first two of four numbers are measured; or the mean of all."""


def ddim(eta: float) -> Callable[[int], Sampler]:
    """DDIM, of so many steps."""
    return lambda steps: DDIM(QuadraticSpacing(), None, steps, eta)


def ancestral(steps: int) -> Sampler:
    """DDPM's sampler."""
    return Ancestral(QuadraticSpacing(), None, steps)


METHODS: dict[str, tuple[Restoration, Callable[[int], Sampler]]] = {
    "ddnm, ddim": (DDNM(), ddim(0)),
    "ddnm, ddim, eta 0.85": (DDNM(), ddim(0.85)),
    "pigdm, ddim": (PiGDM(), ddim(0)),
    "pigdm, ddim, variance 0.28": (PiGDM(0.28), ddim(0)),
    "mmps, ddim": (MMPS(4), ddim(0)),
    "mmps, ancestral": (MMPS(4), ancestral),
    "dps, ancestral, zeta 0.3": (DPS(0.3), ancestral),
    "dps, ancestral, zeta 1": (DPS(1.0), ancestral),
    "ilvr, ancestral": (ILVR(), ancestral),
    "repaint, ancestral, 10 x 2": (RePaint(10, 2), ancestral),
    "repaint, ancestral, 10 x 10": (RePaint(10, 10), ancestral),
}


class Errors(NamedTuple):
    """How far samples are from a posterior, over the directions in which it has a width.

    Attributes:
        mean: the worst error of the mean, in the posterior's standard deviations.
        least: the smallest ratio of the samples' standard deviation to the posterior's.
        greatest: the greatest.
    """

    mean: float
    least: float
    greatest: float


def measured(
    method: Restoration, sampler: Sampler, operator: Operator, noise: float, number: int, seed: int = 0
) -> Errors:
    """How far a method's samples are from the posterior, given the noiseless measurement of `ORIGINAL`.

    Args:
        method: the method of restoration.
        sampler: what it is used with.
        operator: A.
        noise: the standard deviation that the measurement's noise is said to have.
        number: of samples.
        seed: of their noise.
    """
    y = operator(torch.tensor(ORIGINAL).reshape(1, *SHAPE))
    denoise = CorrelatedGaussian(Linear())
    draws, other = (SampleDraws(seed + add, range(number), SHAPE) for add in (0, 2**63))
    measurement = Measurement(y.expand(number, *y.shape[1:]), operator, noise, SHAPE, lambda z: z)
    steered, walk = method(denoise, measurement, sampler.times(denoise.schedule), other)
    made = sampler(steered, draws, walk=walk)
    if method.is_exact and noise == 0:
        made = operator.projected(made, measurement.y)
    mean, cov = posterior(MEAN, COV, matrix_of(operator, SHAPE), y.flatten(), noise**2)
    variances, axes = torch.linalg.eigh(cov)
    free = variances > 1e-6
    along = (made.flatten(1).double() - mean) @ axes[:, free] / variances[free].sqrt()
    ratios = along.std(0)
    return Errors(float(along.mean(0).abs().max()), float(ratios.min()), float(ratios.max()))


def table(operator: Operator, steps: list[int], number: int) -> list[str]:
    """The rows of an operator's table, as Markdown."""
    heads = [f"noise {noise:g}, {each} steps" for noise in NOISES for each in steps]
    rows = [f"| method, sampler | {' | '.join(heads)} |", f"| {'--- | ' * (1 + len(heads))}".rstrip()]
    for name, (method, make) in METHODS.items():
        cells = []
        for noise in NOISES:
            for each in steps:
                if noise > 0 and not method.takes_noise:
                    cells.append("")
                    continue
                found = measured(method, make(each), operator, noise, number)
                cells.append(f"{found.mean:.2f}; {found.least:.2f}-{found.greatest:.2f}")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=2000)
    parser.add_argument("--steps", type=lambda text: [int(each) for each in text.split(",")], default=[10, 50, 250])
    parser.add_argument("--operator", choices=OPERATORS)
    options = parser.parse_args()
    for name in OPERATORS if options.operator is None else [options.operator]:
        print(f"\n{name}\n\n" + "\n".join(table(OPERATORS[name], options.steps, options.number)), flush=True)


if __name__ == "__main__":
    main()
