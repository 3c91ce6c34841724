"""What conf/ holds, found by looking."""

import copy
import functools
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from helpers.backbones import save_backbone
from helpers.clip import save_tiny_clip
from helpers.commands import composed
from helpers.saved import save_untrained
from helpers.text_encoders import save_clip, save_open_clip, save_t5
from hydra import initialize_config_dir
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from langevin.config.overrides import settle
from langevin.config.types import TARGET
from langevin.config.validate import BUNDLES, CONF, PLURAL, groups, groups_of, options
from langevin.spec import DataSpec

COMMANDS = ("train", "sample", "evaluate", "convert")
FILES = sorted(CONF.rglob("*.yaml"))
OPTIONS = [(group, option) for group in groups() for option in options(group)]
BETAS = [0.01 * step for step in range(1, 41)]
PRETRAINED = {"clip": save_clip, "open_clip": save_open_clip, "t5": save_t5}
"""The encoders of text that are read from a folder, and what makes a tiny one, or skips without their package."""
FOLDERS = PRETRAINED | {"pairs": save_tiny_clip}
SLOW = {("text", name) for name in PRETRAINED} | {("metrics", "clip_score")}
"""What takes seconds to import."""
CAPTIONED = ("conditions=[text]", "captions=templates")
STEPPING = (
    "schedule",
    "rescalings",
    "parameterization",
    "variance",
    "objective",
    "weighting",
    "time_sampler",
    "ema",
    "optimizer",
    "lr_schedule",
    "conditions",
    "text",
    "formulation",
)
"""The groups whose options take a step of training, each beside the smallest model."""
# What an option cannot do without, beside the defaults.
NEEDS = {
    ("adapter", "lora"): ("init.checkpoint={model}", "model.channels=32", "model.channel_multipliers=[1]"),
    ("auxiliaries", "alignment"): ("auxiliaries.alignment.run={classifier}",),
    ("timestep_spacing", "explicit"): ("timestep_spacing.times=[3,2,1]", "sampler.steps=null"),
    **{("autoencoder", option): ("task=autoencoder",) for option in options("autoencoder")},
    ("codec", "autoencoder"): ("codec.run={autoencoder}",),
    ("conditions", "text"): ("text=learned", "captions=templates"),
    ("captions", "templates"): ("conditions=[text]", "text=bag"),
    ("conditions", "low_res"): ("conditions.low_res.size=4",),
    ("conditions", "size"): ("loader=buckets",),
    ("discriminator", "patch"): ("task=autoencoder", "discriminator.layers=1"),
    ("classifier", "adm_64"): ("task=classifier", "data.image_size=64"),
    ("classifier", "half_unet"): ("task=classifier",),
    ("experiment", "cifar10_latent"): ("codec.run={autoencoder}", "data=digits"),
    ("experiment", "digits_latent"): ("codec.run={autoencoder}",),
    ("features", "classifier"): ("features.checkpoint={classifier}",),
    ("features", "module"): ("features.target=package.module:callable",),
    ("data", "toy"): ("model=mlp",),
    ("features", "torchscript"): ("features.path=network.pt",),
    ("guidance", "autoguidance"): ("guidance.weaker={model}",),
    ("guidance", "classifier"): ("guidance.classifier={classifier}",),
    ("guidance", "classifier_free"): ("conditions=[class_label]",),
    ("lr_schedule", "cosine"): ("lr_schedule.steps=1",),
    ("lr_schedule", "linear"): ("lr_schedule.steps=1",),
    ("metrics", "clip_score"): (*CAPTIONED, "text=learned", "metrics.clip_score.path={pairs}"),
    ("metrics", "lpips"): ("metrics.lpips.weights={alex}",),
    ("model", "mlp"): ("data=toy",),
    ("model", "tutorial_unet"): ("data.image_size=16",),
    ("objective", "cross_entropy"): ("task=classifier",),
    ("objective", "hybrid"): ("variance=learned_range",),
    ("objective", "reconstruction"): ("task=autoencoder",),
    ("operators", "mask"): ("operators.mask.file={mask}",),
    ("perceptual", "classifier"): ("task=autoencoder", "perceptual.run={classifier}"),
    ("perceptual", "lpips"): ("task=autoencoder", "perceptual.net=alex", "perceptual.weights={alex}"),
    ("rescalings", "zero_terminal_snr"): ("parameterization=v",),
    ("schedule", "explicit"): (f"schedule.betas={BETAS}", "sampler.steps=null"),
    ("schedule", "flow"): ("parameterization=flow",),
    **{("text", option): CAPTIONED for option in ("bag", "learned")},
    **{("text", option): (*CAPTIONED, f"text.path={{{option}}}", "text.length=16") for option in PRETRAINED},
    ("text", "t5"): (*CAPTIONED, "text.path={t5}", "model=unet", "model.cross_attention=true"),
    ("variance", "learned_range"): ("objective=hybrid",),
}
OTHER_TASKS = {place for place, needs in NEEDS.items() if any(need.startswith("task=") for need in needs)}
"""What goes with another task than denoising, and so not with options of the smallest denoiser."""

# Refused as long as no data set supplies what they need; LPIPS' networks need larger images than digits; in training
# nothing is restored.
REFUSED = {("conditions", "vector"), ("metrics", "consistency"), ("perceptual", "lpips")}
if find_spec("peft") is None:
    REFUSED.add(("adapter", "lora"))


def load(file: Path) -> dict[str, Any]:
    """A YAML file as it stands."""
    return yaml.safe_load(file.read_text()) or {}


def group_of(file: Path) -> str:
    """The group a file is an option of; empty for the commands' own files."""
    return file.parent.relative_to(CONF).as_posix().removeprefix(".")


def components(file: Path) -> Iterator[dict[str, Any]]:
    """The nodes of a file that name a class."""

    def walk(node: Any) -> Iterator[dict[str, Any]]:
        if isinstance(node, dict):
            if TARGET in node:
                yield node
            for child in node.values():
                yield from walk(child)

    return walk(load(file))


def choice(group: str, option: str) -> tuple[str, ...]:
    """The overrides that choose an option, and what it needs."""
    chosen = f"{group}=[{option}]" if group in PLURAL else f"{group}={option}"
    return chosen, *(with_files(need) for need in NEEDS.get((group, option), ()))


SPEC = DataSpec.of_images(channels=1, image_size=8, num_classes=10)
NARROW = {
    "{model}": ("model.channels=32", "model.channel_multipliers=[1]"),
    "{autoencoder}": ("task=autoencoder", "autoencoder.channels=8", "autoencoder.norm_groups=4"),
    "{classifier}": ("task=classifier", "classifier.channels=32", "classifier.channel_multipliers=[1]"),
}
FOLDER = tempfile.TemporaryDirectory()


def with_files(override: str, *also: str) -> str:
    """An override with a path in place of {model}, {classifier} or {autoencoder}, a checkpoint made with the choices
    `also`, of {alex}, the weights of an AlexNet, of {mask}, a mask of digits, or of {pairs}, {clip} and the like.
    """
    for name in FOLDERS:
        if f"{{{name}}}" in override:
            return override.replace(f"{{{name}}}", str(pretrained(name)))
    if "{mask}" in override:
        return override.replace("{mask}", str(mask_of_digits()))
    if "{alex}" in override:
        return override.replace("{alex}", str(backbone()))
    for name, overrides in NARROW.items():
        if name in override:
            return override.replace(name, str(untrained(*overrides, *also)))
    return override


@functools.cache
def untrained(*overrides: str) -> Path:
    """A checkpoint of an untrained model of digits."""
    path = Path(FOLDER.name) / f"{abs(hash(overrides))}.ckpt"
    return save_untrained(path, composed("train", *overrides)[0], SPEC)


@functools.cache
def pretrained(name: str) -> Path:
    """The folder of an encoder of text, or of a CLIP."""
    return FOLDERS[name](Path(FOLDER.name) / name)


@functools.cache
def mask_of_digits() -> Path:
    """A mask whose upper half is white."""
    path = Path(FOLDER.name) / "mask.npy"
    np.save(path, np.arange(8)[:, None].repeat(8, 1) < 4)
    return path


@functools.cache
def backbone() -> Path:
    """The weights of an AlexNet, random."""
    return save_backbone(Path(FOLDER.name) / "alexnet.pth", "alex")


def needs_hydra(group: str, option: str) -> bool:
    """Whether an option is more than a node of its own: it needs others, or chooses some."""
    bundle = group in PLURAL or group in BUNDLES or "defaults" in load(CONF / group / f"{option}.yaml")
    return bundle or (group, option) in NEEDS


def chosen_in(base: DictConfig, overrides: tuple[str, ...], group: str, option: str) -> DictConfig:
    """The config of training with `overrides`, which is `base`, and an option: composed by Hydra where it must be."""
    if needs_hydra(group, option):
        given = (*overrides, *choice(group, option))
        cfg = composed("train", *given)[0]
        if group == "debug":  # sets fields of parts that may not be there
            with initialize_config_dir(str(CONF), version_base="1.3"):
                settle(cfg, given, groups_of("train"))
        return cfg
    return swapped(base, **{group: option})


def in_turn(*groups: str) -> list[tuple[str, ...]]:
    """Combinations of the groups' options: each of the first, the largest, once, with those of the others in turn."""
    all_options = [options(group) for group in groups]
    size = len(all_options[0])
    assert size == max(map(len, all_options))
    return [tuple(names[row % len(names)] for names in all_options) for row in range(size)]


@functools.cache
def loaded(file: Path) -> DictConfig | ListConfig:
    """A YAML file as OmegaConf has it."""
    return OmegaConf.load(file)


def swapped(cfg: DictConfig, **choices: str) -> DictConfig:
    """A config with other options of some groups, as their files stand: a hundred times faster than composing it."""
    result = copy.deepcopy(cfg)
    for group, option in choices.items():
        node = copy.deepcopy(loaded(CONF / group / f"{option}.yaml"))
        if OmegaConf.is_missing(node, "betas"):
            node.betas = BETAS
        with open_dict(result):
            result[group] = node.get(group) if option == "none" else node
    return result
