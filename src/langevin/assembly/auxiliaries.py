"""The auxiliaries of a config: terms that are added to its loss; imports no Lightning."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from langevin.assembly.components import loaders
from langevin.assembly.handed import HANDED
from langevin.assembly.logged_values import ANY, BESIDE, SPEED
from langevin.assembly.make import contradicted, is_needed, mistakes_of, target_of, try_instantiate
from langevin.assembly.tasks import task_of
from langevin.config.types import TARGET, plain
from langevin.config.validate import ConfigError, Mistake, structure
from langevin.diffusion.auxiliary import Auxiliary, Teacher, WithAuxiliaries, named
from langevin.diffusion.objective import Objective
from langevin.errors import UserError
from langevin.spec import DataSpec

GROUP = "auxiliaries"
WEIGHTS = "weights"
"""The field of an auxiliary that is the digest of its teacher's weights."""


def complete(cfg: DictConfig, teachers: dict[str, Teacher]) -> list[Mistake]:
    """Read the models that a config's auxiliaries compare with, and write the digests of their weights into it.

    So a run's config says what it was trained with, wherever that lies, and whatever it becomes.

    Args:
        cfg: the config.
        teachers: to which the models are added, by the names of the auxiliaries.

    Returns:
        the mistakes found; where there are any, the config is as it was.
    """
    mistakes: list[Mistake] = []
    nodes = {} if GROUP in task_of(cfg).unused else cfg.get(GROUP) or {}  # is reported with the config's structure
    for name, node in nodes.items():
        path = f"{GROUP}.{name}"
        # What is wrong with its structure is reported with the rest of the config's.
        if not isinstance(node, DictConfig) or structure(
            OmegaConf.create({GROUP: {name: plain(node)}}), {}, (), [GROUP]
        ):
            continue
        try:
            target = target_of(cfg, path)
            read = target.read if isinstance(target, type) and issubclass(target, Auxiliary) else Auxiliary.read
            with torch.random.fork_rng(devices=[]):  # its initial weights must not move the run's random numbers
                teacher = read(_options(cfg, path), loaders(cfg))
        except UserError as error:
            mistakes += mistakes_of(cfg, path, error)
            continue
        if teacher is not None:
            teachers[str(name)] = teacher
            mistakes += contradicted(cfg, path, f"{path}.{teacher.source}", {WEIGHTS: teacher.weights})
    for name, teacher in {} if mistakes else teachers.items():
        with open_dict(cfg):
            cfg[GROUP][name][WEIGHTS] = teacher.weights
    return mistakes


def _options(cfg: DictConfig, path: str) -> dict[str, Any]:
    """The fields of the auxiliary at a path, those left out at their defaults.

    Raises:
        ConfigError: when one is left out that must be given.
    """
    parameters, node = inspect.signature(target_of(cfg, path)).parameters, plain(OmegaConf.select(cfg, path))
    left_out = {name: each for name, each in parameters.items() if name not in {*node, *HANDED}}
    if wrong := [Mistake(f"{path}.{name}", "must be given") for name, each in left_out.items() if is_needed(each)]:
        raise ConfigError(wrong)
    defaults = {name: each.default for name, each in left_out.items() if each.default is not each.empty}
    return defaults | {name: value for name, value in node.items() if name != TARGET}


def mistakes_of_auxiliaries(
    cfg: DictConfig, network: Any, spec: DataSpec, teachers: Mapping[str, Teacher]
) -> list[Mistake]:
    """What is wrong with a config's auxiliaries.

    Args:
        cfg: the config.
        network: what is trained, be it without values.
        spec: of what it diffuses.
        teachers: as `complete` gives them.
    """
    return _built(cfg, network, spec, teachers)[1]


def with_auxiliaries(
    cfg: DictConfig,
    objective: Objective,
    network: nn.Module,
    spec: DataSpec,
    teachers: Mapping[str, Teacher] | None = None,
) -> Objective:
    """A config's objective with its auxiliaries; the objective itself where there are none.

    Args:
        cfg: the config.
        objective: the config's.
        network: what is trained.
        spec: of what it diffuses.
        teachers: as `complete` gives them; None: they are read here.

    Raises:
        ConfigError: when they do not go together.
    """
    mistakes: list[Mistake] = []
    if teachers is None:
        mistakes = complete(cfg, teachers := {})
    if not mistakes:
        auxiliaries, mistakes = _built(cfg, network, spec, teachers)
    if mistakes:
        raise ConfigError(mistakes)
    return WithAuxiliaries(objective, auxiliaries) if auxiliaries else objective


def _built(
    cfg: DictConfig, network: nn.Module, spec: DataSpec, teachers: Mapping[str, Teacher]
) -> tuple[dict[str, Auxiliary], list[Mistake]]:
    auxiliaries: dict[str, Auxiliary] = {}
    mistakes: list[Mistake] = []
    if not cfg.get(GROUP):
        return auxiliaries, mistakes
    terms = getattr(target_of(cfg, "objective"), "logs", ANY)
    taken = {"loss", *terms, *BESIDE, SPEED, *(cfg.get("likelihoods") or ())}
    try:
        named(dict.fromkeys(map(str, cfg[GROUP]), nn.Identity()))
    except UserError as error:
        mistakes += mistakes_of(cfg, GROUP, error)
    for name in cfg[GROUP]:
        path = f"{GROUP}.{name}"
        if name in taken:
            mistakes.append(Mistake(path, "is the name of another value that is logged; call it otherwise"))
        given = {"teacher": teachers[name]} if name in teachers else {}
        auxiliary, found = try_instantiate(cfg, path, network=network, **given, **loaders(cfg))
        mistakes += found
        if found:
            continue
        if not isinstance(auxiliary, Auxiliary):
            kind = f"{Auxiliary.__module__}.{Auxiliary.__name__}"
            mistakes.append(Mistake(f"{path}.{TARGET}", f"is {cfg[GROUP][name][TARGET]}; allowed: what makes a {kind}"))
            continue
        try:
            auxiliary.check(spec)
        except UserError as error:
            mistakes += mistakes_of(cfg, path, error)
        auxiliaries[str(name)] = auxiliary
    return auxiliaries, mistakes
