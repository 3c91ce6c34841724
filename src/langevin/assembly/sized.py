"""Images of other sizes than the usual one: in training by `loader=buckets`, in sampling by `size`."""

from typing import Any

from omegaconf import DictConfig

from langevin.assembly.conditioning import derived_columns, reads_hints, transformed_columns, varies_size
from langevin.assembly.make import target_of
from langevin.assembly.saved import Model
from langevin.codecs.codec import CachedCodec
from langevin.config.signature import signature
from langevin.config.types import TARGET
from langevin.config.validate import ConfigError, Mistake
from langevin.networks.network import Network
from langevin.samplers.generate import SamplePipeline
from langevin.samplers.of_size import OfSize


def training_mistakes(cfg: DictConfig, network: Any) -> list[Mistake]:
    """What is wrong with batches of several sizes, for a network and for what else a config has.

    Args:
        cfg: the config.
        network: built; None where it could not be.
    """
    if "trainer" not in cfg or not varies_size(cfg):
        return []
    if not isinstance(network, Network):
        text = "gives images of several sizes, which only networks of a denoiser take; allowed: loader=default"
        return [] if network is None else [Mistake("loader", text)]
    found, step = [], network.size_step
    if step is None:
        text = f"gives images of several sizes, and {type(network).__name__} takes those of its own alone"
        found.append(Mistake("loader", f"{text}; allowed: loader=default, or a network such as model=unet"))
    elif cfg.loader.multiple_of % step:
        text = f"is {cfg.loader.multiple_of}; allowed: a multiple of {step}, since the network halves sides to 1/{step}"
        found.append(Mistake("loader.multiple_of", text))
    for name in cfg.get("conditions") or {}:
        if follows_size(cfg, name):
            text = "is made for images of one size; leave it out, or take loader=default"
            found.append(Mistake(f"conditions.{name}", text))
    codec = target_of(cfg, "codec")
    if isinstance(codec, type) and issubclass(codec, CachedCodec):
        found.append(Mistake("codec", "keeps latents of one size; allowed with loader=buckets: identity"))
    return found


def follows_size(cfg: DictConfig, condition: str) -> bool:
    """Whether a condition of the model is computed of images, or transforms them."""
    made = derived_columns(cfg, condition) | transformed_columns(cfg, condition)
    return bool(made) or reads_hints(cfg, condition)


def request_size(cfg: DictConfig, chosen: DictConfig, model: Model, generator: SamplePipeline) -> None:
    """Let a pipeline make samples of another size than the model's usual one, where a sampling config asks for it.

    Args:
        cfg: of the command.
        chosen: the model's config with other choices of `SAMPLING`.
        model: the model.
        generator: its pipeline.

    Raises:
        ConfigError: when the model does not take that size.
    """
    if cfg.size is None:
        return
    height, width = cfg.size
    network, usual, diffused = model.denoiser.network, model.spec.shape, generator.shape
    if len(usual) != 3 or not isinstance(network, Network) or network.size_step is None:
        text = f"{type(network).__name__} makes samples of {' x '.join(map(str, usual[1:]))} alone"
        raise ConfigError([Mistake("size", f"is [{height}, {width}]; allowed: null, since {text}")])
    factor = usual[1] // diffused[1]
    step, found = network.size_step * factor, []
    if height % step or width % step:
        found.append(
            Mistake("size", f"is [{height}, {width}]; allowed: multiples of {step}, by which the model divides")
        )
    for name in model.cfg.get("conditions") or {}:
        if follows_size(model.cfg, name):
            text = f"is [{height}, {width}]; allowed: null, since conditions.{name} is for images of the usual size"
            found.append(Mistake("size", text))
    needs = (signature(chosen.guidance[TARGET]) or {}) if chosen.get("guidance") else {}
    if {"load_classifier", "load_denoiser"}.intersection(needs):
        text = f"is [{height}, {width}]; allowed: null where another model guides, which may take the usual size alone"
        found.append(Mistake("size", text))
    if found:
        raise ConfigError(found)
    generator.shape = (diffused[0], height // factor, width // factor)
    generator.requests = OfSize(generator.requests, height, width)
