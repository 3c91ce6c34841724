"""What decides what is trained either trains together or is refused by the check with a reason: nothing in between."""

import functools
import itertools

import pytest
import torch
from helpers.commands import TINY, composed
from helpers.digits import digits
from torch import nn

from contracts.options import swapped
from langevin.assembly.check import mistakes_in
from langevin.assembly.components import make_objective, make_schedule
from langevin.assembly.make import make
from langevin.config.signature import signature
from langevin.config.types import TARGET, fits
from langevin.config.validate import options
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.objective import Simple
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.time_sampler import UniformTimes
from langevin.diffusion.variance import FixedLarge
from langevin.errors import UserError
from langevin.images import from_uint8
from langevin.spec import DataSpec

FEW = 25  # the fewest steps, about, that any schedule allows


class Small(nn.Module):
    """A network of a few hundred weights that gets the noise level."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, out_channels, 3, padding=1)
        self.level = nn.Linear(1, 6)

    def forward(self, x, c_noise, cond=None):
        level = self.level(torch.sin(c_noise / 100)[:, None])[:, :, None, None]
        return self.last(nn.functional.silu(self.first(x) + level))


@functools.cache
def base():
    return composed("train", *TINY)[0]


@functools.cache
def made_images():
    images, _ = digits()
    return from_uint8(torch.from_numpy(images[:16]).permute(0, 3, 1, 2))


def forms(schedule):
    """The numbers of steps a schedule is looked at with: its own, a few, and none if it can do without."""
    node = swapped(base(), schedule=schedule).schedule
    if "num_steps" not in node:
        return [(schedule, "its own")]
    annotation = signature(node[TARGET])["num_steps"].annotation
    others = [steps for steps in (FEW, None) if steps != node.num_steps and fits(steps, annotation)]
    return [(schedule, steps) for steps in ("its own", *others)]


FORMS = [form for schedule in options("schedule") for form in forms(schedule)]


# Some forms every day, and the others where the slow tests run.
SOME = [pytest.param(form, marks=[pytest.mark.slow] if place % 4 else []) for place, form in enumerate(FORMS)]


def config(form, **choices):
    schedule, steps = form
    cfg = swapped(base(), schedule=schedule, **choices)
    if steps != "its own":
        cfg.schedule.num_steps = steps
    return cfg


def takes_a_step(schedule, parameterization, variance, objective):
    """Whether these parts take a finite step that is no standstill; all losses of the batch are looked at.

    The times are those that the time sampler draws, and both ends of the clock.
    """
    denoiser = Denoiser(Small(variance.channels(1)), GaussianProcess(schedule, parameterization, variance))
    t, importance = objective.time_sampler.sample(len(made_images()), schedule, torch.Generator())
    t[0], t[1] = schedule.t_min, schedule.t_max
    noised = denoiser.process.mix(made_images(), torch.randn_like(made_images()), t)
    loss = objective.terms(denoiser, made_images(), noised, None, t)["loss"]
    (importance * loss).mean().backward()
    gradient = torch.cat([weight.grad.flatten() for weight in denoiser.network.parameters()])
    torch.optim.SGD(denoiser.network.parameters(), lr=1e-3).step()
    weights = torch.cat([weight.flatten() for weight in denoiser.network.parameters()])
    return bool(loss.isfinite().all() and gradient.isfinite().all() and gradient.any() and weights.isfinite().all())


@functools.cache
def part(group, option):
    return make(swapped(base(), **{group: option}), group)


def untrainable(schedule, parameterization, weightings):
    """The weightings with which a schedule and a parameterization do not take a step together."""
    parts = schedule, part("parameterization", parameterization), FixedLarge()
    return [
        weighting
        for weighting in weightings
        if not takes_a_step(*parts, Simple(UniformTimes(), part("weighting", weighting)))
    ]


def assert_refused(cfg, groups):
    """The check speaks of one of these groups, and gives a reason."""
    mistakes = mistakes_in(cfg)
    assert mistakes
    for path, message in mistakes:
        assert path.split(".")[0] in groups
        assert len(message) > 20


def is_continuous(form):
    return config(form).schedule.get("num_steps") is None


def last(schedule):
    """The level and its rate at the last time."""
    t = torch.tensor(schedule.t_max, dtype=torch.float64)
    return schedule(t), schedule.rate(t)


def unsuited(parameterization, schedule):
    """Whether a parameterization cannot go with a schedule; by names here, as the check must not."""
    level, rate = last(schedule)
    return (
        (parameterization in ("posterior_mean", "posterior_shift") and schedule.num_steps is None)
        or (parameterization in ("eps", "score", "edm") and level.alpha == 0)
        or (parameterization == "flow" and torch.hypot(*rate) * schedule.t_max < 1e-6)
    )


def test_there_are_enough_to_look_at():
    assert len(FORMS) > 20
    assert sum(is_continuous(form) for form in FORMS) > 8


def some(group, place, count):
    """So many options of a group; others at the next place."""
    return tuple(itertools.islice(itertools.cycle(options(group)), place * count, (place + 1) * count))


@pytest.mark.parametrize("form", SOME, ids=lambda form: f"{form[0]}-{form[1]}")
def test_schedule_parameterization_and_weighting(form):
    torch.manual_seed(0)
    schedule = make_schedule(config(form), image_size=8)
    suited = [name for name in options("parameterization") if not unsuited(name, schedule)]
    for parameterization in options("parameterization"):
        cfg = config(form, parameterization=parameterization)
        if parameterization not in suited:
            assert_refused(cfg, {"parameterization"})
            continue
        place = FORMS.index(form) + suited.index(parameterization)
        assert untrainable(schedule, parameterization, some("weighting", place, 3)) == [], parameterization
    for parameterization in (suited[FORMS.index(form) % len(suited)], suited[-1]):
        assert mistakes_in(config(form, parameterization=parameterization)) == []


@pytest.mark.parametrize("form", SOME, ids=lambda form: f"{form[0]}-{form[1]}")
def test_schedule_without_signal_at_its_end(form):
    torch.manual_seed(0)
    cfg = swapped(config(form), rescalings="zero_terminal_snr")
    try:
        schedule = make_schedule(cfg, image_size=8)
    except UserError:
        assert_refused(cfg, {"rescalings"})
        assert form[0] in ("edm", "ve", "flow")
        return
    for parameterization in options("parameterization"):
        if unsuited(parameterization, schedule):
            assert_refused(swapped(cfg, parameterization=parameterization), {"parameterization"})
        else:
            assert untrainable(schedule, parameterization, ("unit_eps", "vlb")) == [], parameterization
    assert mistakes_in(swapped(cfg, parameterization="v")) == []


RESCALINGS = [name for name in options("rescalings") if name != "zero_terminal_snr"]


@pytest.mark.parametrize(
    ("form", "rescaling"),
    [
        pytest.param(form, rescaling, marks=[pytest.mark.slow] if place % 2 else [])
        for place, (form, rescaling) in enumerate(zip(FORMS, itertools.cycle(RESCALINGS), strict=False))
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else value,
)
def test_schedule_and_rescaling(form, rescaling):
    torch.manual_seed(0)
    cfg = swapped(config(form), rescalings=rescaling)
    if rescaling == "unscaled_timesteps" and is_continuous(form):
        assert_refused(cfg, {"rescalings"})
        return
    schedule = make_schedule(cfg, image_size=8)
    for parameterization in some("parameterization", FORMS.index(form), 3):
        if not unsuited(parameterization, schedule):
            assert untrainable(schedule, parameterization, ("unit_eps", "vlb")) == [], parameterization
    assert mistakes_in(swapped(cfg, parameterization="v")) == []


@pytest.mark.parametrize("variance", options("variance"))
@pytest.mark.parametrize("objective", options("objective"))
@pytest.mark.parametrize(
    "form",
    [
        ("linear", "its own"),
        pytest.param(("cosine", FEW), marks=pytest.mark.slow),
        ("cosine", None),
        pytest.param(("edm", "its own"), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_objective_variance_and_time_sampler(form, objective, variance):
    torch.manual_seed(0)
    place = FORMS.index(form) + options("objective").index(objective) + 2 * options("variance").index(variance)
    (time_sampler,) = some("time_sampler", place, 1)
    cfg = config(form, objective=objective, variance=variance, time_sampler=time_sampler)
    refused = {
        "objective": objective in ("cross_entropy", "reconstruction")  # of other models
        or (objective in ("vlb", "hybrid") and is_continuous(form))
        or (variance == "learned_range" and objective in ("simple", "l1", "huber", "uncertainty"))
        or (variance != "learned_range" and objective == "hybrid"),
        "time_sampler": time_sampler == "loss_aware" and is_continuous(form),
    }
    if any(refused.values()):
        assert_refused(cfg, {group for group, wrong in refused.items() if wrong})
        return
    assert mistakes_in(cfg) == []
    parts = (make(cfg, group) for group in ("parameterization", "variance"))
    assert takes_a_step(make_schedule(cfg, 8), *parts, make_objective(cfg, DataSpec.of_images(3, 8, None)))


@pytest.mark.parametrize("time_sampler", options("time_sampler"))
@pytest.mark.parametrize("form", [("cosine", FEW), ("cosine", None)], ids=str)
def test_schedule_and_time_sampler(form, time_sampler):
    cfg = config(form, time_sampler=time_sampler)
    if time_sampler == "loss_aware" and is_continuous(form):
        assert_refused(cfg, {"time_sampler"})
    else:
        assert mistakes_in(cfg) == []


def test_a_standstill_is_no_step():
    """At the one time that this schedule has, no signal is left, and what counts nothing teaches nothing."""
    assert untrainable(FlowSchedule(1), "x", ["unit_eps", "unit_x"]) == ["unit_eps"]
