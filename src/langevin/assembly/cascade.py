"""A chain of models: one makes small images, each of the next enlarges what the one before has made."""

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from langevin.assembly.check import check_model
from langevin.assembly.components import SAMPLING, make_sampler
from langevin.assembly.conditioning import is_class_conditional
from langevin.assembly.low_res import Link, SmallImages, low_res_of, require_level
from langevin.assembly.prompting import NEGATIVE, PROMPT
from langevin.assembly.sample_files import NOISY_FILE
from langevin.assembly.sampling import fill
from langevin.assembly.saved import Model, load_model, override
from langevin.assembly.text_files import encoder_of, frozen_encoder_of
from langevin.checkpoint import find_checkpoint, folder_of
from langevin.config.validate import ConfigError, Mistake
from langevin.data.read_images import read_images
from langevin.errors import UserError
from langevin.filling import filling
from langevin.processes import is_first_process
from langevin.samplers.truncated import Truncated

STAGES = "stages"
"""The folder, in that of the samples, of what all stages but the last have made."""
SEED = 2**56
"""Added to the seed at each stage, so that none has the noise of another."""


def fill_cascade(cfg: DictConfig) -> None:
    """Sample from a cascade into a folder; killed and rerun it resumes, in the stage where it was.

    Each stage is what `langevin sample` makes of its model with the images of the stage before as `low_res.images`,
    under a seed of its own. Of the two kinds of conditioning augmentation in Ho et al. 2022 (arXiv 2106.15282, section
    4.2) it is the non-truncated one, which adds noise to finished images, unless `low_res.truncated` leaves it in them.

    Raises:
        UserError: when a run is missing, the stages do not fit each other, or as `fill`.
    """
    paths = [find_checkpoint(Path(each), "cascade") for each in cfg.cascade]
    models = [load_model(path, cfg.trust) for path in paths]
    stops = check_cascade(cfg, list(cfg.cascade), models)
    out = Path(cfg.out) if cfg.out else folder_of(paths[-1]) / "generated"
    folders = [*(out / STAGES / str(stage) for stage in range(len(paths) - 1)), out]
    with filling(out) if is_first_process() else nullcontext():
        small = None
        for stage, (path, folder, stop) in enumerate(zip(paths, folders, stops, strict=True)):
            model = models.pop(0)  # so that no finished stage keeps its weights on the device
            chosen = stage_config(cfg, stage, model, is_last=folder == out)
            if is_first_process():
                folder.mkdir(parents=True, exist_ok=True)
            fill(folder, path, chosen, model, Link(small, stop))
            if folder != out:
                small = handed_on(folder, cfg.low_res.noise_level, stop)


def check_cascade(cfg: DictConfig, names: Sequence[str], models: Sequence[Model]) -> list[Truncated | None]:
    """Find every mistake before the first stage samples.

    Args:
        cfg: of the cascade.
        names: of its stages, for messages.
        models: of its stages.

    Returns:
        where each stage stops; None: at the data.

    Raises:
        UserError: when the stages do not fit each other, or one cannot do what is asked of it.
    """
    if mistakes := stage_mistakes(names, models) + prompt_mistakes(cfg, models):
        raise ConfigError(mistakes)
    level: float = cfg.low_res.noise_level
    if cfg.low_res.truncated and (mistakes := truncation_mistakes(level, names, models)):
        raise ConfigError(mistakes)
    stops: list[Truncated | None] = []
    for place, (name, model) in enumerate(zip(names, models, strict=True)):
        chosen = override(model.cfg, cfg, SAMPLING)
        check_model(chosen, SAMPLING, model.spec)
        if (condition := low_res_of(model)) is not None:
            require_level(condition, level)
        if not cfg.low_res.truncated or place == len(models) - 1:
            stops.append(None)
            continue
        schedule = model.denoiser.schedule
        try:
            stops.append(Truncated(schedule, make_sampler(chosen, model.diffused).times(schedule), level))
        except UserError as error:
            text = f"is {level}, where {name} is to stop with low_res.truncated; {error}"
            raise ConfigError([Mistake("low_res.noise_level", text)]) from error
    return stops


def stage_config(cfg: DictConfig, stage: int, model: Model, is_last: bool) -> DictConfig:
    """What `langevin sample` is given for a stage, of which the cascade's config is."""
    chosen = copy.deepcopy(cfg)
    chosen.seed = (cfg.seed + stage * SEED) % 2**64
    chosen.png = cfg.png and is_last
    if not is_class_conditional(model.cfg):
        chosen.labels = None
    if encoder_of(model.denoiser.network) is None:
        chosen.prompt = chosen.negative = None
    if frozen_encoder_of(model.denoiser.network) is None:
        chosen.text.path = None
    if stage == 0:
        chosen.low_res.noise_level = 0.0
    return chosen


def handed_on(folder: Path, level: float, stop: Truncated | None) -> SmallImages:
    """What a finished stage has left in its folder for the next, see `small_of`."""
    samples, labels = read_images(str(folder), "cascade")
    noisy = None
    if stop is not None:
        with np.load(folder / NOISY_FILE, allow_pickle=False) as arrays:
            noisy = arrays["arr_0"]
    return small_of(samples, labels, noisy, level, stop)


def small_of(
    samples: NDArray[np.uint8],
    labels: NDArray[np.int64] | None,
    noisy: NDArray[np.float32] | None,
    level: float,
    stop: Truncated | None,
) -> SmallImages:
    """What a stage gives the next: noise of `level` is added, but where it stopped."""
    return SmallImages(samples, labels, level if stop is None else stop.level, noisy)


def truncation_mistakes(level: float, names: Sequence[str], models: Sequence[Model]) -> list[Mistake]:
    """Why stages cannot hand on noisy images."""
    found = []
    if level == 0:
        text = "is 0.0, where stages stop with low_res.truncated; allowed: more, such as 0.1"
        found.append(Mistake("low_res.noise_level", text))
    for name, model in zip(names[:-1], models[:-1], strict=True):
        if model.codec.record():
            text = f"is true, but {name} diffuses latents, and noise in these is none in images; allowed: false"
            found.append(Mistake("low_res.truncated", text))
    for name, model in zip(names[1:], models[1:], strict=True):
        condition = low_res_of(model)
        if condition is not None and condition.augmentation != "noise":
            text = f"is true; allowed with models trained with augmentation=noise; {name}: {condition.augmentation}"
            found.append(Mistake("low_res.truncated", text))
    return found


def stage_mistakes(names: Sequence[str], models: Sequence[Model]) -> list[Mistake]:
    """Where the stages do not fit each other."""
    found = []
    if low_res_of(models[0]) is not None:
        found.append(f"begins with {names[0]}, which enlarges images itself; allowed: a model without low_res first")
    for place in range(1, len(models)):
        name, before, model = names[place], models[place - 1], models[place]
        condition = low_res_of(model)
        if condition is None:
            found.append(f"has {name} after {names[place - 1]}; allowed: there a model with conditions=[low_res]")
            continue
        taken = (condition.concat_channels, condition.size, condition.size)
        if before.spec.shape != taken:
            sizes = f"{names[place - 1]} makes images of (channels, height, width) {before.spec.shape}"
            found.append(f"does not fit: {sizes}, and {name} enlarges {taken}")
        classes, earlier = (
            each.spec.num_classes if is_class_conditional(each.cfg) else None for each in (model, before)
        )
        if classes is not None and classes != earlier:
            has = "has none" if earlier is None else f"has {earlier}"
            found.append(
                f"does not fit: {name} is conditioned on {classes} classes, and {names[place - 1]} {has}; allowed: as "
                "many"
            )
    return [Mistake("cascade", text) for text in found]


def prompt_mistakes(cfg: DictConfig, models: Sequence[Model]) -> list[Mistake]:
    """Prompts that no stage reads, and files that no stage's encoder is read from."""
    found = []
    if cfg.text.path is not None and all(frozen_encoder_of(model.denoiser.network) is None for model in models):
        text = f"is {cfg.text.path}; allowed with a model whose text encoder is read from files, and none has such"
        found.append(Mistake("text.path", text))
    if all(encoder_of(model.denoiser.network) is None for model in models):
        text = "is given, and none of the models is trained with conditions=[text]; leave it out"
        found += [Mistake(name, text) for name in (PROMPT, NEGATIVE) if cfg[name] is not None]
    return found
