"""What is restored of measurements, built from a command's config."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig

from langevin.assembly.components import make_sampler, modality_of
from langevin.assembly.make import make, mistakes_of, target_of
from langevin.assembly.saved import Model
from langevin.config.types import plain
from langevin.config.validate import ConfigError, Mistake
from langevin.data.read_images import read_images
from langevin.errors import OptionError, UserError
from langevin.restoration.operators.composition import Composition
from langevin.restoration.operators.operator import Operator
from langevin.restoration.restoration import Restoration
from langevin.samplers.given import Given
from langevin.samplers.restored import Restored
from langevin.spec import DataSpec

RESTORING = ("restoration", "operators")
"""The groups of a restoration."""


def choice_mistakes(cfg: DictConfig, for_metrics: bool = False) -> list[Mistake]:
    """The mistakes in what a command's config chooses for a restoration, as far as they show without the model.

    Args:
        cfg: the config.
        for_metrics: whether a metric takes operators, so that they may be given without a restoration.
    """
    chosen, operators = cfg.get("restoration") is not None, bool(cfg.get("operators"))
    mistakes = []
    if chosen and not operators:
        mistakes.append(Mistake("operators", "is empty; allowed: what is measured, such as operators=[average]"))
    if not chosen:
        given = [name for name, value in cfg.measurement.items() if value not in (None, 0)]
        given = [*(["operators"] if operators and not for_metrics else []), *(f"measurement.{name}" for name in given)]
        mistakes += [Mistake(name, "goes with restoration=NAME, such as restoration=ddnm") for name in given]
    return mistakes


def make_operator(cfg: DictConfig) -> Operator:
    """The config's operators, in their order, as one.

    Raises:
        ConfigError: when one cannot be built.
    """
    return Composition({str(name): make(cfg, f"operators.{name}") for name in cfg.operators})


def prepare_restoration(cfg: DictConfig, chosen: DictConfig, model: Model) -> Callable[[Given, bool], Restored]:
    """Build what a command's config restores with, which shows all its mistakes before any image is read.

    Args:
        cfg: of the command, with `restoration`, `operators` and `measurement`.
        chosen: the model's config with other choices, such as of a sampler.
        model: whose samples are restored.

    Returns:
        what gives a `Restored` of measurements or originals, and which of both these are.

    Raises:
        ConfigError: when the parts do not go together, or not with the model.
    """
    spec, codec = model.spec, model.codec
    method: Restoration = make(cfg, "restoration")
    operator, noise = make_fitting_operator(cfg, spec), float(cfg.measurement.noise)
    name = type(method).__name__
    mistakes = []
    sampler = make_sampler(chosen, model.diffused)
    if method.walks and not sampler.independent_steps:
        text = f"is used with restoration={name}, which acts between the steps; allowed: ancestral, ddim, euler"
        mistakes.append(Mistake("sampler", text))
    if (churn := getattr(sampler, "s_churn", 0)) > 0:  # methods go by the times that a sampler visits
        mistakes.append(Mistake("sampler.s_churn", f"is {churn:g}; allowed with a restoration: 0"))
    guided = chosen.get("guidance") is not None
    if guided and method.needs_gradient and not getattr(target_of(chosen, "guidance"), "differentiable", True):
        text = f"has no gradient of its own, which restoration={name} takes; allowed: another, or restoration=ddnm"
        mistakes.append(Mistake("guidance", text))
    if noise > 0 and not method.takes_noise:
        text = f"is {noise:g}; allowed with {name}, which takes measurements to be exact: 0"
        mistakes.append(Mistake("measurement.noise", text))
    of_latents = None
    if codec.record() and not method.in_latents:
        try:
            of_latents = operator.of_latents(spec.shape, model.diffused.shape)
        except UserError:
            text = "the model diffuses latents; allowed: restoration=dps, or a mask as the only operator"
            mistakes.append(Mistake("restoration", f"is {name}, which moves what is diffused, and {text}"))
        if noise > 0:
            text = f"is {noise:g}; allowed with {name}, where latents are diffused: 0"
            mistakes.append(Mistake("measurement.noise", text))
    if mistakes:
        raise ConfigError(mistakes)
    settings = {"method": plain(cfg.restoration), **operator.record()}

    def restored(given: Given, are_measured: bool) -> Restored:
        modality = modality_of(spec)
        return Restored(method, operator, noise, given, are_measured, spec.shape, modality, settings, of_latents)

    return restored


def make_fitting_operator(cfg: DictConfig, spec: DataSpec) -> Operator:
    """The config's operators as one, of which it is known that it suits the model's samples.

    Raises:
        ConfigError: when one cannot be built, or does not suit them.
    """
    operator = make_operator(cfg)
    try:
        operator.measured(spec.shape)
    except OptionError as error:
        raise ConfigError([Mistake(*each) for each in error.found]) from error
    except UserError as error:
        raise ConfigError(mistakes_of(cfg, "operators", error)) from error
    return operator


def open_given(cfg: DictConfig, spec: DataSpec) -> tuple[Given, bool]:
    """The measurements that a config names, or the originals; and whether they are measurements.

    Raises:
        UserError: when there are neither, or both, or of another shape, or an operator does not suit the samples.
    """
    places: Mapping[str, Any] = {name: cfg.measurement[name] for name in ("images", "originals")}
    named = [name for name, place in places.items() if place is not None]
    if len(named) != 1:
        text = "measurement.images=IMAGES, measurements to restore, or measurement.originals=IMAGES, to be measured"
        raise ConfigError([Mistake("measurement", f"give one of {text}")])
    (name,) = named
    suited = make_fitting_operator(cfg, spec).measured(spec.shape) if name == "images" else spec.shape
    channels, *size = suited
    option, path = f"measurement.{name}", places[name]
    images, labels = read_images(path, option)
    if images.shape[1:] != (*size, channels):
        whose = "operators of the model's samples give" if name == "images" else "the model's samples are"
        raise UserError(
            f"{option}={path}: images of (height, width, channels) {images.shape[1:]}; {whose} {(*size, channels)}"
        )
    return Given(images, labels, None, hashlib.sha256(images.tobytes()).hexdigest()), name == "images"
