"""Builds the model and what makes its images; imports no Lightning, so that a command answers at once."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from omegaconf import DictConfig

from langevin.assembly.make import make, mistakes_of
from langevin.config.types import plain
from langevin.config.validate import ConfigError
from langevin.diffusion.classifier import NoisyClassifier
from langevin.diffusion.denoiser import Denoise, Denoiser
from langevin.diffusion.objective import Objective
from langevin.diffusion.schedules.schedule import Schedule
from langevin.errors import UserError
from langevin.facts import DataFacts
from langevin.guidance.guidance import Guidance, Guided
from langevin.samplers.generate import SamplePipeline
from langevin.samplers.requests import Labels
from langevin.samplers.sampler import Sampler

MODEL = ("model", "classifier", "condition", "schedule", "rescalings", "parameterization", "variance")
"""The groups that a trained model is rebuilt from."""
SAMPLING = ("sampler", "timestep_spacing", "thresholding", "guidance")
"""The groups that may be replaced for a trained model."""


def is_conditional(cfg: DictConfig) -> bool:
    """Whether the model is class-conditional."""
    return cfg.get("condition") is not None


def is_classifier(cfg: DictConfig) -> bool:
    """Whether the model is a classifier of noisy images, not a denoiser."""
    return cfg.get("classifier") is not None


def make_model(cfg: DictConfig, facts: DataFacts) -> Denoiser | NoisyClassifier:
    """What a config trains, with fresh weights; see `make_denoiser` and `make_classifier`."""
    return make_classifier(cfg, facts) if is_classifier(cfg) else make_denoiser(cfg, facts)


def make_classifier(cfg: DictConfig, facts: DataFacts) -> NoisyClassifier:
    """The classifier of a config, with fresh weights; see `make_network`."""
    network = make_network(cfg, facts)
    return NoisyClassifier(network, make_schedule(cfg, facts.image_size), make(cfg, "parameterization"))


def make_denoiser(cfg: DictConfig, facts: DataFacts) -> Denoiser:
    """The model of a config, with fresh weights; see `make_network`."""
    network, schedule = make_network(cfg, facts), make_schedule(cfg, facts.image_size)
    return Denoiser(network, schedule, make(cfg, "parameterization"), make(cfg, "variance"))


def make_network(cfg: DictConfig, facts: DataFacts) -> Any:
    """The network of a config's model or classifier, with fresh weights.

    Raises:
        UserError: when it needs labels that the data does not have, or it cannot be built.
    """
    if is_classifier(cfg):
        if facts.num_classes is None:
            raise UserError("classifier: needs labels, but the data has none; use data with labels")
        offered = {"in_channels": facts.channels, "num_classes": facts.num_classes, "image_size": facts.image_size}
        return make(cfg, "classifier", **offered)
    condition: Callable[..., Any] | None = None
    if is_conditional(cfg):
        if facts.num_classes is None:
            raise UserError("condition: needs labels, but the data has none; leave condition out")
        condition = functools.partial(make, cfg, "condition", num_classes=facts.num_classes)
    return make(
        cfg,
        "model",
        in_channels=facts.channels,
        out_channels=make(cfg, "variance").channels(facts.channels),
        image_size=facts.image_size,
        condition=condition,
    )


def make_schedule(cfg: DictConfig, image_size: int) -> Schedule:
    """The config's noise schedule, with the config's rescalings applied in order."""
    schedule = make(cfg, "schedule")
    for name in cfg.get("rescalings") or {}:
        schedule = make(cfg, f"rescalings.{name}", schedule=schedule, image_size=image_size)
    return schedule


def make_objective(cfg: DictConfig) -> Objective:
    """The objective that the config minimises."""
    offered = {} if cfg.get("weighting") is None else {"weighting": make(cfg, "weighting")}
    return make(cfg, "objective", **offered)


def make_sampler(cfg: DictConfig) -> Sampler:
    """The config's sampler, with its timestep spacing."""
    thresholding = None if cfg.get("thresholding") is None else make(cfg, "thresholding")
    return make(cfg, "sampler", timestep_spacing=make(cfg, "timestep_spacing"), thresholding=thresholding)


def make_generator(cfg: DictConfig, facts: DataFacts, labels: list[int] | None = None) -> SamplePipeline:
    """The sampling pipeline with the config's sampler and guidance.

    Raises:
        UserError: when the guidance or the labels do not suit the model.
    """
    guidance: Guidance | None = None if cfg.get("guidance") is None else make(cfg, "guidance", **loaders(cfg))
    num_classes = facts.num_classes if is_conditional(cfg) else None
    if guidance is not None:
        try:
            guidance.check(make_schedule(cfg, facts.image_size), facts, is_conditional(cfg))
        except UserError as error:
            raise ConfigError(mistakes_of(cfg, "guidance", error)) from error
        num_classes = guidance.num_classes or num_classes

    def guide(denoiser: Denoiser, device: torch.device | str) -> Denoise:
        return denoiser if guidance is None else Guided(denoiser, guidance.to(device))

    settings = {group: None if cfg.get(group) is None else plain(cfg[group]) for group in ("ema", *SAMPLING)}
    return SamplePipeline(make_sampler(cfg), guide, facts.shape, Labels(num_classes, labels), settings)


def loaders(cfg: DictConfig) -> dict[str, Callable[..., Any]]:
    """The loaders of other models for guidance and features, called with the option that names a run and its value.

    Args:
        cfg: its `trust` lists the code that the configs of these runs may name besides our own.
    """
    # Not at the top: to load a model is to check its config, which is done here.
    from langevin.assembly.saved import classifier_for_features, classifier_for_guidance, denoiser_for_guidance

    found = {
        "load_classifier": classifier_for_guidance,
        "load_denoiser": denoiser_for_guidance,
        "load_clean_classifier": classifier_for_features,
    }
    return {name: functools.partial(load, trust=tuple(cfg.get("trust") or ())) for name, load in found.items()}
