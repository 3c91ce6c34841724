"""The auxiliaries of a config: terms that are added to its loss; imports no Lightning."""

from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from langevin.assembly.components import loaders
from langevin.assembly.logged_values import ANY, BESIDE, SPEED
from langevin.assembly.make import contradicted, mistakes_of, target_of, try_instantiate
from langevin.assembly.tasks import task_of
from langevin.config.signature import TargetError, signature
from langevin.config.types import TARGET
from langevin.config.validate import ConfigError, Mistake
from langevin.diffusion.auxiliary import Auxiliary, WithAuxiliaries
from langevin.diffusion.objective import Objective
from langevin.errors import UserError
from langevin.spec import DataSpec

GROUP = "auxiliaries"
RUN, WEIGHTS = "run", "weights"
"""The fields of an auxiliary that reads another run: where it lies, and the digest of its weights."""


def complete(cfg: DictConfig) -> list[Mistake]:
    """Write into a config the digests of the weights of the runs that its auxiliaries read.

    So a run's config says what it was trained with, wherever that lies, and whatever it becomes.

    Returns:
        the mistakes found; where there are any, the config is as it was.
    """
    from langevin.assembly.saved import weights_of  # not at the top: to load a run is to check its config

    mistakes: list[Mistake] = []
    found: list[tuple[DictConfig, str]] = []
    if GROUP in task_of(cfg).unused:  # is reported with the config's structure
        return []
    for name, node in (cfg.get(GROUP) or {}).items():
        if not isinstance(node, DictConfig) or not _reads_a_run(node) or OmegaConf.is_missing(node, RUN):
            continue
        path, place = f"{GROUP}.{name}", node.get(RUN)
        if not isinstance(place, str):
            continue
        try:
            digest = weights_of(RUN, place, tuple(cfg.get("trust") or ()))
        except UserError as error:
            mistakes += mistakes_of(cfg, path, error)
            continue
        mistakes += contradicted(cfg, path, f"{path}.{RUN}={place}", {WEIGHTS: digest})
        found.append((node, digest))
    if not mistakes:
        for node, digest in found:
            with open_dict(node):
                node[WEIGHTS] = digest
    return mistakes


def _reads_a_run(node: DictConfig) -> bool:
    """Whether the constructor that a node names has both fields; where it takes any, whether the node has them."""
    try:
        names = signature(str(node.get(TARGET)))
    except TargetError:  # is reported with the config's structure
        return False
    return {RUN, WEIGHTS} <= (node if names is None else names).keys()


def mistakes_of_auxiliaries(cfg: DictConfig, network: Any, spec: DataSpec) -> list[Mistake]:
    """What is wrong with a config's auxiliaries.

    Args:
        cfg: the config.
        network: what is trained, be it without values.
        spec: of what it diffuses.
    """
    return _built(cfg, network, spec)[1]


def with_auxiliaries(cfg: DictConfig, objective: Objective, network: nn.Module, spec: DataSpec) -> Objective:
    """A config's objective with its auxiliaries; the objective itself where there are none.

    Args:
        cfg: the config.
        objective: the config's.
        network: what is trained.
        spec: of what it diffuses.

    Raises:
        ConfigError: when they do not go together.
    """
    auxiliaries, mistakes = _built(cfg, network, spec)
    if mistakes:
        raise ConfigError(mistakes)
    return WithAuxiliaries(objective, auxiliaries) if auxiliaries else objective


def _built(cfg: DictConfig, network: nn.Module, spec: DataSpec) -> tuple[dict[str, Auxiliary], list[Mistake]]:
    auxiliaries: dict[str, Auxiliary] = {}
    mistakes: list[Mistake] = []
    if not cfg.get(GROUP):
        return auxiliaries, mistakes
    terms = getattr(target_of(cfg, "objective"), "logs", ANY)
    taken = {"loss", *terms, *BESIDE, SPEED, *(cfg.get("likelihoods") or ())}
    for name in cfg[GROUP]:
        path = f"{GROUP}.{name}"
        if name in taken:
            mistakes.append(Mistake(path, "is the name of another value that is logged; call it otherwise"))
        elif hasattr(nn.ModuleDict(), str(name)):  # which holds them
            mistakes.append(Mistake(path, "is a name that PyTorch has for something else; call it otherwise"))
        auxiliary, found = try_instantiate(cfg, path, network=network, **loaders(cfg))
        mistakes += found
        if auxiliary is None:
            continue
        try:
            auxiliary.check(spec)
        except UserError as error:
            mistakes += mistakes_of(cfg, path, error)
        auxiliaries[str(name)] = auxiliary
    return auxiliaries, mistakes
