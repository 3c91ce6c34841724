"""What is restored of measurements, built from a command's config."""

import hashlib
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from langevin.assembly.components import modality_of
from langevin.assembly.make import make, mistakes_of
from langevin.codecs.codec import Codec
from langevin.config.types import plain
from langevin.config.validate import ConfigError, Mistake
from langevin.data.read_images import read_images
from langevin.errors import OptionError, UserError
from langevin.restoration.operators.composition import Composition
from langevin.restoration.operators.operator import Operator
from langevin.restoration.restoration import Restoration
from langevin.samplers.given import Given
from langevin.samplers.restored import Restored
from langevin.samplers.sampler import Sampler
from langevin.spec import DataSpec

RESTORING = ("restoration", "operators")
"""The groups of a restoration."""


def choice_mistakes(cfg: DictConfig) -> list[Mistake]:
    """The mistakes in what a command's config chooses for a restoration, as far as they show without the model."""
    chosen, operators = cfg.get("restoration") is not None, bool(cfg.get("operators"))
    mistakes = []
    if chosen and not operators:
        mistakes.append(Mistake("operators", "is empty; allowed: what is measured, such as operators=[average]"))
    if not chosen:
        given = [name for name, value in cfg.measurement.items() if value not in (None, 0)]
        given = [*(["operators"] if operators else []), *(f"measurement.{name}" for name in given)]
        mistakes += [Mistake(name, "goes with restoration=NAME, such as restoration=ddnm") for name in given]
    return mistakes


def make_operator(cfg: DictConfig) -> Operator:
    """The config's operators, in their order, as one.

    Raises:
        ConfigError: when one cannot be built.
    """
    return Composition({str(name): make(cfg, f"operators.{name}") for name in cfg.operators})


def make_restored(
    cfg: DictConfig, given: Given, are_measured: bool, spec: DataSpec, codec: Codec, sampler: Sampler
) -> Restored:
    """What a config restores.

    Args:
        cfg: with `restoration`, `operators` and `measurement`.
        given: the measurements, or originals, of the shape that `open_given` has checked.
        are_measured: which of both.
        spec: of the model's data.
        codec: the model's.
        sampler: the one that is used.

    Raises:
        ConfigError: when the parts do not go together, or not with the model.
    """
    method: Restoration = make(cfg, "restoration")
    operator, noise = make_operator(cfg), float(cfg.measurement.noise)
    name = type(method).__name__
    mistakes = []
    if method.walks and not sampler.independent_steps:
        text = f"is used with restoration={name}, which acts between the steps; allowed: ancestral, ddim, euler"
        mistakes.append(Mistake("sampler", text))
    if noise > 0 and not method.takes_noise:
        text = f"is {noise:g}; allowed with {name}, which takes measurements to be exact: 0"
        mistakes.append(Mistake("measurement.noise", text))
    of_latents = None
    if codec.record() and not method.in_latents:
        try:
            of_latents = operator.of_latents(spec.shape, codec.spec(spec).shape)
        except UserError:
            text = "the model diffuses latents; allowed: restoration=dps, or a mask as the only operator"
            mistakes.append(Mistake("restoration", f"is {name}, which moves what is diffused, and {text}"))
        if noise > 0:
            text = f"is {noise:g}; allowed with {name}, where latents are diffused: 0"
            mistakes.append(Mistake("measurement.noise", text))
    if mistakes:
        raise ConfigError(mistakes)
    settings = {"method": plain(cfg.restoration), **operator.record()}
    return Restored(method, operator, noise, given, are_measured, spec.shape, modality_of(spec), settings, of_latents)


def measured_shape(cfg: DictConfig, spec: DataSpec) -> tuple[int, ...]:
    """The shape of a measurement of the model's samples.

    Raises:
        ConfigError: when an operator does not suit them.
    """
    try:
        return make_operator(cfg).measured(spec.shape)
    except OptionError as error:
        raise ConfigError([Mistake(*each) for each in error.found]) from error
    except UserError as error:
        raise ConfigError(mistakes_of(cfg, "operators", error)) from error


def open_given(cfg: DictConfig, spec: DataSpec) -> tuple[Given, bool]:
    """The measurements that a config names, or the originals; and whether they are measurements.

    Raises:
        UserError: when there are neither, or both, or of another shape.
    """
    places: Mapping[str, Any] = {name: cfg.measurement[name] for name in ("images", "originals")}
    named = [name for name, place in places.items() if place is not None]
    if len(named) != 1:
        text = "measurement.images=IMAGES, measurements to restore, or measurement.originals=IMAGES, to be measured"
        raise ConfigError([Mistake("measurement", f"give one of {text}")])
    (name,) = named
    channels, *size = measured_shape(cfg, spec) if name == "images" else spec.shape
    option, path = f"measurement.{name}", places[name]
    images, labels = read_images(path, option)
    if images.shape[1:] != (*size, channels):
        whose = "operators of the model's samples give" if name == "images" else "the model's samples are"
        raise UserError(
            f"{option}={path}: images of (height, width, channels) {images.shape[1:]}; {whose} {(*size, channels)}"
        )
    return Given(images, labels, None, hashlib.sha256(images.tobytes()).hexdigest()), name == "images"
