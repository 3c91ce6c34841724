"""The options of conf/ that make up the mathematics, all of them, as the program builds them."""

import itertools
from collections.abc import Iterable
from typing import get_args, get_type_hints

import numpy as np
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from torch import Tensor

from langevin.build.components import make_schedule
from langevin.build.make import make
from langevin.config.validate import CONF, options
from langevin.diffusion.parameterization import Parameterization
from langevin.diffusion.schedules.schedule import Schedule
from langevin.errors import UserError

MANY = 1000
BETAS = [0.01 * step for step in range(1, 41)]
IMAGE_SIZE = 160
"""The side of the pictures, for the rescaling that asks for it: 2.5 times its reference."""


def component(group: str, option: str):
    """An option as the program builds it, where nothing else is chosen."""
    return make(OmegaConf.create({group: OmegaConf.load(CONF / group / f"{option}.yaml")}), group)


def forms(option: str) -> list[dict[str, int | None]]:
    """A schedule's discrete forms, with many steps and with few, and its continuous one, as its constructor allows."""
    target = OmegaConf.load(CONF / "schedule" / f"{option}.yaml")._target_
    kind = get_type_hints(get_class(target).__init__).get("num_steps")
    if kind is None:
        return [{}]
    continuous = [{"num_steps": None}] if type(None) in get_args(kind) else []
    return [{"num_steps": MANY}, {"num_steps": 40}, *continuous]


def schedule_of(option: str, rescalings: Iterable[str] = (), **fields) -> Schedule:
    """A schedule of conf/, rescaled in that order, with its own fields replaced by `fields`."""
    cfg = OmegaConf.create({"schedule": OmegaConf.load(CONF / "schedule" / f"{option}.yaml")})
    if OmegaConf.is_missing(cfg.schedule, "betas"):
        cfg.schedule.betas = BETAS
    cfg.schedule.update(fields)
    cfg.rescalings = OmegaConf.merge({}, *(OmegaConf.load(CONF / "rescalings" / f"{name}.yaml") for name in rescalings))
    return make_schedule(cfg, IMAGE_SIZE)


def every_schedule() -> tuple[dict[str, Schedule], dict[str, str]]:
    """All of conf/schedule in all forms, under none, any one and (but for those of many steps) any two of
    conf/rescalings, by names such as "linear-40 zero_terminal_snr"; and what is said of those that cannot be.
    """
    built, refused = {}, {}
    for option in options("schedule"):
        for fields in forms(option):
            form = "-".join([option, *(str(value or "continuous") for value in fields.values())])
            for count in (0, 1) if fields.get("num_steps") == MANY else (0, 1, 2):
                for rescalings in itertools.permutations(options("rescalings"), count):
                    name = " ".join([form, *rescalings])
                    try:
                        built[name] = schedule_of(option, rescalings, **fields)
                    except UserError as error:
                        refused[name] = str(error)
    return built, refused


SCHEDULES, REFUSED = every_schedule()
PLAIN = {name: schedule for name, schedule in SCHEDULES.items() if " " not in name}


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
    """Whether nothing is said against the two."""
    try:
        parameterization.check(schedule)
    except UserError:
        return False
    return True
