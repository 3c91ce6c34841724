"""The options of conf/ that make up the mathematics, all of them, as the program builds them.

They take turns: each option is there, and each kind of schedule under each rescaling, but not their whole product.
"""

import contextlib
import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import get_args, get_type_hints

import numpy as np
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from torch import Tensor

from langevin.assembly.components import make_schedule
from langevin.assembly.make import make
from langevin.config.validate import CONF, options
from langevin.diffusion.parameterization import Parameterization
from langevin.diffusion.schedules.schedule import Schedule
from langevin.errors import UserError

MANY, FEW = 1000, 40
BETAS = [0.01 * step for step in range(1, 41)]
IMAGE_SIZE = 160
"""The side of the images, for the rescaling that asks for it: 2.5 times its reference."""


def component(group: str, option: str):
    """An option as the program builds it, where nothing else is chosen."""
    return make(OmegaConf.create({group: OmegaConf.load(CONF / group / f"{option}.yaml")}), group)


def forms(option: str, few_or_many: Iterator[int]) -> dict[str, dict[str, int | None]]:
    """A schedule's discrete form, with the next number of steps, and its continuous one, as its constructor allows."""
    target = OmegaConf.load(CONF / "schedule" / f"{option}.yaml")._target_
    kind = get_type_hints(get_class(target).__init__).get("num_steps")
    if kind is None:
        return {option: {}}
    steps = next(few_or_many)
    continuous = {f"{option}-continuous": {"num_steps": None}} if type(None) in get_args(kind) else {}
    return {f"{option}-{steps}": {"num_steps": steps}, **continuous}


def schedule_of(option: str, rescalings: Iterable[str] = (), **fields) -> Schedule:
    """A schedule of conf/, rescaled in that order, with its own fields replaced by `fields`."""
    cfg = OmegaConf.create({"schedule": OmegaConf.load(CONF / "schedule" / f"{option}.yaml")})
    if OmegaConf.is_missing(cfg.schedule, "betas"):
        cfg.schedule.betas = BETAS
    cfg.schedule.update(fields)
    cfg.rescalings = OmegaConf.merge({}, *(OmegaConf.load(CONF / "rescalings" / f"{name}.yaml") for name in rescalings))
    return make_schedule(cfg, IMAGE_SIZE)


def built(form: str, rescalings: Iterable[str] = ()) -> Schedule:
    """A form of FORMS, rescaled in that order."""
    return schedule_of(form.partition("-")[0], rescalings, **FORMS[form])


@functools.cache
def every_combination() -> tuple[dict[str, Schedule], dict[str, str]]:
    """All forms under none, any one and any ordered two of conf/rescalings, by names such as "linear-1000
    zero_terminal_snr"; and the message for those that cannot be.

    A second or so: for a test that looks at all of them at once.
    """
    allowed, refused = {}, {}
    orders = [order for count in (0, 1, 2) for order in itertools.permutations(options("rescalings"), count)]
    for form, rescalings in itertools.product(FORMS, orders):
        name = " ".join([form, *rescalings])
        try:
            allowed[name] = built(form, rescalings)
        except UserError as error:
            refused[name] = str(error)
    return allowed, refused


def rescaled() -> dict[str, Schedule]:
    """Every form under one rescaling, and every ordered pair of rescalings on one form, both in turn."""
    found = {}
    names = [*options("rescalings")]
    singles = [
        [(form, (names[(place - k) % len(names)],)) for k in range(len(names))] for place, form in enumerate(FORMS)
    ]
    pairs = [
        [(form, pair) for form in [*FORMS][4 * place :] + [*FORMS][: 4 * place]]
        for place, pair in enumerate(itertools.permutations(names, 2))
    ]
    for choices in singles + pairs:
        for form, rescalings in choices:  # the first that is not refused
            with contextlib.suppress(UserError):
                found[" ".join([form, *rescalings])] = built(form, rescalings)
                break
    return found


# Few and many steps in turn: a property that holds of two schedules of a kind at these holds of both at either.
_counts = itertools.cycle([MANY, FEW])
FORMS = {name: fields for option in options("schedule") for name, fields in forms(option, _counts).items()}
PLAIN = {form: built(form) for form in FORMS}
SCHEDULES = PLAIN | rescaled()


def trained(schedule: Schedule) -> Tensor:
    """Times that a model of the schedule is trained at, from first to last."""
    if schedule.num_steps is not None:
        return torch.arange(1, schedule.num_steps + 1, dtype=torch.float64)
    even = np.linspace(schedule.t_min, schedule.t_max, 50)
    return torch.from_numpy(np.unique(np.concatenate([even, np.geomspace(schedule.t_min, schedule.t_max, 50)])))


def everywhere(schedule: Schedule) -> Tensor:
    """The times of `trained` and some between them."""
    t = trained(schedule)
    return torch.cat([t, (t[1:] + t[:-1]) / 2, t[:-1] + 0.2 * t.diff()]).sort().values


def go_together(parameterization: Parameterization, schedule: Schedule) -> bool:
    """Whether the two can go together."""
    try:
        parameterization.check(schedule)
    except UserError:
        return False
    return True
