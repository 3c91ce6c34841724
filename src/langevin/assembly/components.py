"""Builds the model and what makes its images; imports no Lightning, so that a command answers at once."""

import functools
from collections.abc import Callable
from typing import Any

import hydra
import torch
from omegaconf import DictConfig
from torch import nn

from langevin.adapters.adapter import Adapter
from langevin.assembly.conditioning import is_class_conditional, is_conditional
from langevin.assembly.make import make, mistakes_of, target_of
from langevin.assembly.tasks import task_of
from langevin.autoencoding.model import AutoencoderModel
from langevin.codecs.codec import Codec
from langevin.config.types import TARGET, node_of, path_of, plain
from langevin.config.validate import ConfigError
from langevin.diffusion.classifier import NoisyClassifier
from langevin.diffusion.denoiser import Denoise, Denoiser
from langevin.diffusion.objective import Objective
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.schedules.schedule import Schedule
from langevin.errors import UserError
from langevin.features.dinov2_patches import load_patches
from langevin.guidance.guidance import Guidance, Guided
from langevin.modalities.modality import Modality
from langevin.networks.network import Network
from langevin.samplers.generate import SamplePipeline
from langevin.samplers.given import OfGiven
from langevin.samplers.requests import Labels, Requests
from langevin.samplers.restored import Restored
from langevin.samplers.sampler import Sampler
from langevin.spec import DataSpec

MODEL = (
    *("task", "model", "classifier", "autoencoder", "conditions", "text", "adapter", "codec"),
    *("process", "schedule", "rescalings", "parameterization", "variance"),
)
"""The groups that a trained model is rebuilt from."""
LOSS = ("time_sampler", "weighting", "perceptual", "discriminator")
"""The groups that an objective is made of."""
SAMPLING = ("sampler", "timestep_spacing", "thresholding", "guidance")
"""The groups that may be replaced for a trained model."""


def make_codec(cfg: DictConfig, spec: DataSpec) -> Codec:
    """The config's codec for data of some spec, with the weights of the run that it names, if it does."""
    group = codec_uses(cfg)
    offered = {} if group is None or cfg.get(group) is None else {"network": make(cfg, group, **of_spec(spec))}
    codec: Codec = make(cfg, "codec", spec=spec, **offered, **loaders(cfg))
    return codec.requires_grad_(False).eval()


def codec_uses(cfg: DictConfig) -> str | None:
    """The group of the network of the config's codec, if that has one; None where there is no sound codec.

    Raises:
        ConfigError: when its class cannot be imported.
    """
    node = cfg.get("codec")
    if not isinstance(node, DictConfig) or not isinstance(node.get(TARGET), str):  # is reported with the structure
        return None
    group: str | None = getattr(target_of(cfg, "codec"), "uses", None)
    return group


def modality_of(spec: DataSpec) -> Modality:
    """The modality that a spec names; where it is a stranger's, `refuse_modality` comes first.

    Raises:
        UserError: when there is none of that name.
    """
    try:
        found = hydra.utils.get_class(spec.modality)
        if issubclass(found, Modality):
            return found()
    except Exception as error:  # importing a module can raise anything
        raise UserError(f"the data's modality {spec.modality} cannot be imported ({error})") from error
    raise UserError(f"the data's modality {spec.modality} is no modality")


def make_model(cfg: DictConfig, spec: DataSpec) -> Denoiser | NoisyClassifier | AutoencoderModel:
    """What a config trains, with fresh weights; see `make_network`."""
    process = make_process(cfg, spec.image_size)
    return task_of(cfg).make_model(make_network(cfg, spec, process), process)


def make_network(cfg: DictConfig, spec: DataSpec, process: GaussianProcess | None) -> Any:
    """The network of what a config trains, with fresh weights.

    Args:
        cfg: the config.
        spec: of what is diffused.
        process: the config's; None where it has none.

    Raises:
        UserError: when it needs labels that the data does not have, or it cannot be built.
    """
    task = task_of(cfg)
    offered = task.offered(cfg, spec.num_classes, process, of_spec(spec))
    network = make(cfg, task.network, **of_spec(spec), **offered)
    if isinstance(network, Network):
        network.leave_out_tokens()
    return network


def make_adapter(cfg: DictConfig) -> Adapter | None:
    """The config's adapter, if it has one."""
    return None if cfg.get("adapter") is None else make(cfg, "adapter")


def adapt(cfg: DictConfig, network: nn.Module) -> None:
    """Put the config's adapter into a network that is to be trained, if it has one.

    Raises:
        ConfigError: when they do not go together.
    """
    try:
        if (adapter := make_adapter(cfg)) is not None:
            adapter.inject(network)
    except UserError as error:
        raise ConfigError(mistakes_of(cfg, "adapter", error)) from error


def of_spec(spec: DataSpec) -> dict[str, Any]:
    """What a spec offers to the constructors of networks and conditions."""
    size = {} if spec.image_size is None else {"image_size": spec.image_size}
    words = {} if spec.vocabulary is None else {"vocabulary": spec.vocabulary}
    return {"in_channels": spec.channels, **size, **words}


def make_schedule(cfg: DictConfig, image_size: int | None) -> Schedule:
    """The config's noise schedule, with the config's rescalings applied in order; None: of what is no image."""
    schedule, size = make(cfg, "schedule"), {} if image_size is None else {"image_size": image_size}
    for name in cfg.get("rescalings") or {}:
        schedule = make(cfg, f"rescalings.{name}", schedule=schedule, **size)
    return schedule


def make_process(cfg: DictConfig, image_size: int | None) -> GaussianProcess | None:
    """The config's process: its schedule, and what a network's output means by it; None where it has none."""
    if cfg.get("process") is None:
        return None
    parts = {name: make(cfg, name) for name in ("parameterization", "variance") if cfg.get(name) is not None}
    return make(cfg, "process", schedule=make_schedule(cfg, image_size), **parts)


def make_objective(cfg: DictConfig, spec: DataSpec) -> Objective:
    """The objective that the config minimises, for what is diffused or reconstructed."""
    offered = {**of_spec(spec), **loaders(cfg)}
    parts = {name: make(cfg, name, **offered) for name in LOSS if cfg.get(name) is not None}
    return make(cfg, "objective", **parts, **offered)


def make_sampler(cfg: DictConfig, spec: DataSpec) -> Sampler:
    """The config's sampler for data of some spec, with its timestep spacing and thresholding."""
    thresholding = None if cfg.get("thresholding") is None else make(cfg, "thresholding", spec=spec)
    return make(cfg, "sampler", timestep_spacing=make(cfg, "timestep_spacing"), thresholding=thresholding)


def make_generator(
    cfg: DictConfig,
    spec: DataSpec,
    codec: Codec,
    labels: list[int] | None = None,
    restored: Restored | None = None,
) -> SamplePipeline:
    """The sampling pipeline with the config's sampler and guidance.

    Args:
        cfg: the model's config.
        spec: of its data.
        codec: the model's.
        labels: the requested classes.
        restored: what the samples are restored from; None: they are sampled freely.

    Raises:
        UserError: when the guidance or the labels do not suit the model.
    """
    diffused, sampler = codec.spec(spec), make_sampler(cfg, codec.spec(spec))
    guidance: Guidance | None = None if cfg.get("guidance") is None else make(cfg, "guidance", **loaders(cfg))
    num_classes = spec.num_classes if is_class_conditional(cfg) else None
    if guidance is not None:
        try:
            guidance.check(make_schedule(cfg, diffused.image_size), diffused, is_conditional(cfg))
        except UserError as error:
            raise ConfigError(mistakes_of(cfg, "guidance", error)) from error
        num_classes = guidance.num_classes or num_classes

    def guide(denoiser: Denoiser, device: torch.device | str) -> Denoise:
        if guidance is None:
            return denoiser
        try:
            guidance.require_same_encoding(denoiser)
        except UserError as error:
            raise ConfigError(mistakes_of(cfg, "guidance", error)) from error
        return Guided(denoiser, guidance.to(device))

    settings = {group: None if cfg.get(group) is None else plain(cfg[group]) for group in ("ema", *SAMPLING)}
    settings["thresholding"] = described(sampler.thresholding, settings["thresholding"])
    requests: Requests = Labels(num_classes, labels)
    if restored is not None and restored.given.split is not None and requests.in_turn:
        requests = OfGiven(restored.given.labels)
    return SamplePipeline(sampler, guide, diffused.shape, modality_of(spec), codec, requests, settings, restored)


def described(part: Any, node: dict[str, Any] | None) -> dict[str, Any] | None:
    """A part as its config's node, or as the node of what that has chosen."""
    if part is None or node is None:
        return None
    return node if node[TARGET] == path_of(type(part)) else node_of(part)


def loaders(cfg: DictConfig) -> dict[str, Callable[..., Any]]:
    """The loaders of other models, called with the option that names a run and its value.

    Args:
        cfg: its `trust` lists the code that the configs of these runs may name besides our own.
    """
    # Not at the top: to load a model is to check its config, which is done here.
    from langevin.assembly.saved import (
        autoencoder_for_codec,
        classifier_for_features,
        classifier_for_guidance,
        denoiser_for_guidance,
    )

    found = {
        "load_classifier": classifier_for_guidance,
        "load_denoiser": denoiser_for_guidance,
        "load_clean_classifier": classifier_for_features,
        "load_autoencoder": autoencoder_for_codec,
    }
    trusting = {name: functools.partial(load, trust=tuple(cfg.get("trust") or ())) for name, load in found.items()}
    return {**trusting, "load_dinov2": load_patches}
