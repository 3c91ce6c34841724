"""Builds the model's parts and finds what does not go together; imports no Lightning, so that it answers at once."""

import copy
import functools
import inspect
import math
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from torch import nn

from langevin.config.types import TARGET, holds_components, plain
from langevin.config.validate import BUNDLES, PLURAL, ConfigError, Mistake, groups, structure
from langevin.diffusion.denoiser import Denoise, Denoiser
from langevin.diffusion.objective import Objective
from langevin.diffusion.schedules.schedule import Schedule
from langevin.errors import UserError
from langevin.samplers.generate import Generator
from langevin.samplers.sampler import Sampler

RUN_OPTIONS = {
    "name": "str | None",
    "output_dir": "str",
    "resume": "bool",
    "seed": "Annotated[int, Ge(0)]",
    "batch_size": "Annotated[int, Ge(1)]",
}
"""A run's own options, beside the components it is made of."""
OPTIONAL = ("condition", "thresholding", "guidance", *PLURAL)
"""The groups of a run of which nothing need be chosen."""
MODEL = ("model", "condition", "schedule", "rescalings", "parameterization", "variance")
"""The groups that a trained model is rebuilt from."""
SAMPLING = ("sampler", "grid", "thresholding", "guidance")
"""The groups that may be chosen anew for a trained model."""
SUPPLIED = frozenset({"label"})
"""What a batch of data tells of its images."""
DECIDED = "is decided by the rest of the config; leave it out"


@dataclass(frozen=True)
class DataFacts:
    """What the model must know of the data; stored with its weights.

    Attributes:
        channels: of a picture.
        image_size: the side of a picture in pixels.
        num_classes: how many classes the labels tell apart; None without labels.
    """

    channels: int
    image_size: int
    num_classes: int | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of a picture."""
        return self.channels, self.image_size, self.image_size

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def make(cfg: DictConfig, path: str, **offered: Any) -> Any:
    """Build the component that the config holds at `path`.

    Args:
        cfg: the whole config.
        path: where the component's node is, such as "sampler" or "callbacks.samples".
        **offered: what the program can hand on: each is given to a constructor that has a parameter of its name, and
            to those of the named components that a field of the node holds.

    Raises:
        UserError: when the class cannot be imported, or its constructor finds a mistake; the message begins with the
            path.
    """
    node = OmegaConf.select(cfg, path)
    target = target_of(cfg, path)
    accepted = {name: offered[name] for name in inspect.signature(target).parameters if name in offered}
    fixed = [name for name in accepted if name in node]
    if fixed:
        raise UserError(f"{path}.{fixed[0]}: {DECIDED}")
    parts = {
        name: {key: make(cfg, f"{path}.{name}.{key}", **offered) for key in value}
        for name, value in node.items()
        if holds_components(value)
    }
    # Hydra is given the plain values only; what is handed on never passes through a config.
    construct = hydra.utils.instantiate(node, _partial_=True, _recursive_=not parts, _convert_="all")
    try:
        return construct(**accepted, **parts)
    except UserError as error:
        raise UserError(located(path, str(error))) from error


def target_of(cfg: DictConfig, path: str) -> Callable[..., Any]:
    """The class or function that the component at `path` names.

    Raises:
        UserError: when importing it fails, with the cause.
    """
    target = OmegaConf.select(cfg, path)[TARGET]
    try:
        return hydra.utils.get_object(target)
    except Exception as error:  # importing a module can raise anything
        cause = error.__cause__ or error
        raise UserError(f"{path}.{TARGET}: importing '{target}' failed: {type(cause).__name__}: {cause}") from error


def located(path: str, message: str) -> str:
    """A component's message with the path of its node in front, if it does not name it already."""
    return message if message.startswith(path) else f"{path}: {message}"


def is_conditional(cfg: DictConfig) -> bool:
    """Whether the model is told the labels."""
    return cfg.get("condition") is not None


def make_denoiser(cfg: DictConfig, facts: DataFacts) -> Denoiser:
    """The model of a config, with fresh weights.

    Raises:
        UserError: when it is to be told labels that the data does not have, or its network cannot be built.
    """
    condition: Callable[..., Any] | None = None
    if is_conditional(cfg):
        if facts.num_classes is None:
            raise UserError("condition: the model is to be told labels, but the data has none; leave condition out")
        condition = functools.partial(make, cfg, "condition", num_classes=facts.num_classes)
    variance = make(cfg, "variance")
    network = make(
        cfg,
        "model",
        in_channels=facts.channels,
        out_channels=variance.channels(facts.channels),
        image_size=facts.image_size,
        condition=condition,
    )
    return Denoiser(network, make_schedule(cfg, facts.image_size), make(cfg, "parameterization"), variance)


def make_schedule(cfg: DictConfig, image_size: int) -> Schedule:
    """The config's noise schedule, rescaled as it says, in that order."""
    schedule = make(cfg, "schedule")
    for name in cfg.get("rescalings") or {}:
        schedule = make(cfg, f"rescalings.{name}", schedule=schedule, image_size=image_size)
    return schedule


def make_objective(cfg: DictConfig) -> Objective:
    """What the config minimises."""
    return make(cfg, "objective", weighting=make(cfg, "weighting"))


def make_sampler(cfg: DictConfig) -> Sampler:
    """The config's sampler, with its grid of times."""
    thresholding = None if cfg.get("thresholding") is None else make(cfg, "thresholding")
    return make(cfg, "sampler", grid=make(cfg, "grid"), thresholding=thresholding)


def make_generator(cfg: DictConfig, facts: DataFacts, labels: list[int] | None = None) -> Generator:
    """What makes pictures with the config's sampler and guidance.

    Raises:
        UserError: when the labels do not suit the model.
    """

    def guide(denoiser: Denoiser) -> Denoise:
        return denoiser if cfg.get("guidance") is None else make(cfg, "guidance", denoiser=denoiser)

    num_classes = facts.num_classes if is_conditional(cfg) else None
    return Generator(make_sampler(cfg), guide, facts.shape, num_classes, labels)


def attempt(cfg: DictConfig, path: str, **offered: Any) -> tuple[Any, list[Mistake]]:
    """Build the component at `path` as `make` does, to find all its mistakes.

    A constructor stops at the first. So the value it refuses is then replaced by its default, until it is content.

    Returns:
        the component, None when it had a mistake; and the mistakes.
    """
    mistakes: list[Mistake] = []
    while True:
        try:
            component = make(cfg, path, **offered)
            return (None if mistakes else component), mistakes
        except (UserError, ValueError) as error:  # torch's optimizers raise ValueError
            found = mistake(cfg, path, str(error))
        if found in mistakes:
            return None, mistakes
        mistakes.append(found)
        node, field = OmegaConf.select(cfg, path), found.path.removeprefix(f"{path}.")
        if field == TARGET or field not in node:
            return None, mistakes
        default = inspect.signature(target_of(cfg, path)).parameters[field].default
        if default is inspect.Parameter.empty or default == node[field]:
            return None, mistakes
        cfg = copy.deepcopy(cfg)
        OmegaConf.select(cfg, path)[field] = default


def mistake(cfg: DictConfig, path: str, message: str) -> Mistake:
    """What the constructor of the component at `path` says, as a mistake with the path of the value it is about.

    It is about a value if it begins "steps is 0; ..." or "steps=0: ...", perhaps with the path or the class in front.
    """
    message = message.removeprefix(f"{path}: ")
    if found := re.match(r"(?:[\w.]+\.)?(\w+)(?: is |=)(\S+[;:] .*)", message, re.DOTALL):
        field, text = found[1], f"is {found[2]}"
    elif found := re.match(r"[\w.]+\.(\w+): (.*)", message, re.DOTALL):
        field, text = found[1], found[2]
    else:
        return Mistake(path, message)
    if field in OmegaConf.select(cfg, path):
        return Mistake(f"{path}.{field}", text)
    return Mistake(field, text) if field in cfg else Mistake(path, message)


def contradictions(cfg: DictConfig, broken: Collection[str]) -> list[Mistake]:
    """The mistakes that show when parts are built and put together, without data and without weights.

    Args:
        cfg: the composed config, or a part of it.
        broken: the groups whose structure is already known to be wrong; nothing is built of them.
    """
    mistakes: list[Mistake] = []

    def build(group: str, **offered: Any) -> Any:
        missing = group.partition(".")[0] in broken or OmegaConf.select(cfg, group) is None
        if missing or any(part is None for part in offered.values()):
            return None
        component, found = attempt(cfg, group, **offered)
        mistakes.extend(found)
        return component

    def suits(group: str, part: Any, *others: Any) -> bool:
        """Whether a part, if all these could be built, says that it suits the others."""
        if any(each is None for each in (part, *others)):
            return False
        try:
            part.check(*others)
        except UserError as error:
            # A part speaks of itself without its name: "keeps a history for each discrete time, but ...".
            mistakes.append(Mistake(group, f"{type(part).__name__} {error}"))
            return False
        return True

    schedule, parameterization, variance = build("schedule"), build("parameterization"), build("variance")
    for name in cfg.get("rescalings") or {}:
        # Any size will do: what it does to the schedule's range is the same.
        schedule = build(f"rescalings.{name}", schedule=schedule, image_size=64)
    build("thresholding")
    sampler = build("sampler", grid=build("grid"))
    objective, time_sampler = build("objective", weighting=build("weighting")), build("time_sampler")
    build("lr_schedule")
    build("ema", network=nn.Identity())
    build("data")
    condition = build("condition", num_classes=2, dim=2)
    if condition is not None and (lacking := sorted(condition.inputs - SUPPLIED)):
        needs = f"needs the {' and the '.join(lacking)} of each image, which no data supplies"
        mistakes.append(Mistake("condition", f"{needs}; take condition=class_label or none"))
    if sampler is not None and schedule is not None:
        try:
            sampler.grid(schedule, sampler.steps)
        except UserError as error:
            # About the sampler's number of steps if it says so, else about the grid as a whole.
            found = mistake(cfg, "sampler", str(error))
            mistakes.append(Mistake("grid", found.message) if found.path == "sampler" else found)
    suits("time_sampler", time_sampler, schedule)
    suits("objective", objective, schedule, variance)
    if suits("parameterization", parameterization, schedule) and variance is not None:
        build("guidance", denoiser=Denoiser(nn.Identity(), schedule, parameterization, variance))
    for name in cfg.get("likelihoods") or {}:
        suits(f"likelihoods.{name}", build(f"likelihoods.{name}"), schedule)
    if not {"model", "data"}.intersection(broken) and "image_size" in cfg.get("data", {}):
        mistakes += misfits(cfg)
    if cfg.get("guidance") is not None and not is_conditional(cfg):
        mistakes.append(
            Mistake("guidance", "needs a model that is told labels: add condition=class_label, or leave guidance out")
        )
    if not {"trainer", "batch_size"}.intersection(broken) and "trainer" in cfg:
        mistakes += shares(cfg)
    return mistakes


def misfits(cfg: DictConfig) -> list[Mistake]:
    """What the network says against its own parameters and the size of the pictures."""
    try:
        network = target_of(cfg, "model")
    except UserError as error:
        return [mistake(cfg, "model", str(error))]
    find: Callable[..., list[tuple[str, str]]] | None = getattr(network, "check", None)
    if find is None:
        return []
    fields = {name: value for name, value in plain(cfg.model).items() if name != TARGET}
    parameters = inspect.signature(find).parameters.values()
    if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
        own = {parameter.name for parameter in parameters} - {"image_size"}
        needed = {parameter.name for parameter in parameters if parameter.default is parameter.empty} & own
        mistakes = [Mistake(f"model.{name}", DECIDED) for name in sorted(fields.keys() - own)]
        mistakes += [Mistake(f"model.{name}", "must be given") for name in sorted(needed - fields.keys())]
        if mistakes:
            return mistakes
    found = find(**fields, image_size=cfg.data.image_size)
    return [Mistake("data.image_size" if field == "image_size" else f"model.{field}", text) for field, text in found]


def shares(cfg: DictConfig) -> list[Mistake]:
    """Whether a batch can be shared out among processes and micro-batches, where their number is known."""
    names = ("devices", "num_nodes", "accumulate_grad_batches")
    counts = [cfg.trainer.get(name) for name in names]
    counts = [int(count) if isinstance(count, str) and count.isdigit() else count for count in counts]
    if not all(isinstance(count, int) and count > 0 for count in counts):
        return []
    parts = math.prod(counts)
    if cfg.batch_size % parts == 0:
        return []
    of = " * ".join(f"{count} (trainer.{name})" for name, count in zip(names, counts, strict=True) if count > 1)
    return [Mistake("batch_size", f"is {cfg.batch_size}; allowed: a multiple of {of}")]


def mistakes_in(cfg: DictConfig) -> list[Mistake]:
    """The mistakes in a training config that show without Lightning; `langevin.build.run.rehearse` finds the others."""
    required = [group for group in groups() if group not in (*BUNDLES, *OPTIONAL)]
    mistakes = structure(cfg, RUN_OPTIONS, required, OPTIONAL)
    broken = {path.partition(".")[0] for path, _ in mistakes}
    return mistakes + contradictions(cfg, broken)


def check_model(cfg: DictConfig, also: Collection[str] = ()) -> None:
    """Find every mistake in what a trained model is rebuilt from, and in the groups `also`.

    Raises:
        ConfigError: with all of them.
    """
    part = OmegaConf.masked_copy(cfg, [group for group in (*MODEL, *also) if group in cfg])
    required = [group for group in (*MODEL, *also) if group not in OPTIONAL]
    mistakes = structure(part, {}, required, OPTIONAL)
    mistakes += contradictions(part, {path.partition(".")[0] for path, _ in mistakes})
    if mistakes:
        raise ConfigError(mistakes)


def override(cfg: DictConfig, choices: DictConfig, groups: Iterable[str]) -> DictConfig:
    """A model's own config with other choices: a whole component in place of its own, or single fields of its own."""
    result = copy.deepcopy(cfg)
    for group in groups:
        if group not in choices:
            continue
        choice, own = choices[group], result.get(group)
        result[group] = choice if own is None or choice is None or TARGET in choice else OmegaConf.merge(own, choice)
    return result
