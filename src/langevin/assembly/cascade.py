"""A chain of models: one makes small images, each of the next enlarges what the one before has made."""

import copy
from contextlib import nullcontext
from pathlib import Path

from omegaconf import DictConfig

from langevin.assembly.check import check_model
from langevin.assembly.components import SAMPLING
from langevin.assembly.conditioning import is_class_conditional
from langevin.assembly.low_res import low_res_of, require_level
from langevin.assembly.prompting import NEGATIVE, PROMPT, encoder_of
from langevin.assembly.sampling import fill
from langevin.assembly.saved import Model, load_model, override
from langevin.checkpoint import find_checkpoint, folder_of
from langevin.config.validate import ConfigError, Mistake
from langevin.filling import filling
from langevin.processes import is_first_process

STAGES = "stages"
"""The folder, in that of the samples, of what all stages but the last have made."""
SEED = 2**56
"""Added to the seed at each stage, so that none has the noise of another."""


def fill_cascade(cfg: DictConfig) -> None:
    """Sample from a cascade into a folder; killed and rerun it resumes, in the stage where it was.

    Each stage is what `langevin sample` makes of its model with the finished images of the stage before as
    `low_res.images`, under a seed of its own. Their noise is added to finished images, not left in them: of the two
    kinds of conditioning augmentation in Ho et al. 2022 (arXiv 2106.15282, section 4.2) the non-truncated one.

    Raises:
        UserError: when a run is missing, the stages do not fit each other, or as `fill`.
    """
    paths = [find_checkpoint(Path(each), "cascade") for each in cfg.cascade]
    models = [load_model(path, cfg.trust) for path in paths]
    if mistakes := stage_mistakes(cfg, models):
        raise ConfigError(mistakes)
    for model in models:  # before the first of them samples
        check_model(override(model.cfg, cfg, SAMPLING), SAMPLING, model.spec)
        if (condition := low_res_of(model)) is not None:
            require_level(condition, cfg.low_res.noise_level)
    out = Path(cfg.out) if cfg.out else folder_of(paths[-1]) / "generated"
    folders = [*(out / STAGES / str(stage) for stage in range(len(paths) - 1)), out]
    with filling(out) if is_first_process() else nullcontext():
        for stage, (path, folder) in enumerate(zip(paths, folders, strict=True)):
            model = models.pop(0)  # so that no finished stage keeps its weights on the device
            chosen = stage_config(cfg, stage, model, folders)
            if is_first_process():
                folder.mkdir(parents=True, exist_ok=True)
            fill(folder, path, chosen, model)


def stage_config(cfg: DictConfig, stage: int, model: Model, folders: list[Path]) -> DictConfig:
    """What `langevin sample` is given for a stage, of which the cascade's config is."""
    chosen = copy.deepcopy(cfg)
    chosen.seed = (cfg.seed + stage * SEED) % 2**64
    chosen.png = cfg.png and stage == len(folders) - 1
    if not is_class_conditional(model.cfg):
        chosen.labels = None
    if encoder_of(model.denoiser.network) is None:
        chosen.prompt = chosen.negative = None
    if stage == 0:
        chosen.low_res.noise_level = 0.0
    else:
        chosen.low_res.images = str(folders[stage - 1])
    return chosen


def stage_mistakes(cfg: DictConfig, models: list[Model]) -> list[Mistake]:
    """Where the stages do not fit each other."""
    names, found = list(cfg.cascade), []
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
    mistakes = [Mistake("cascade", text) for text in found]
    if all(encoder_of(model.denoiser.network) is None for model in models):
        text = "is given, and none of the models is trained with conditions=[text]; leave it out"
        mistakes += [Mistake(name, text) for name in (PROMPT, NEGATIVE) if cfg[name] is not None]
    return mistakes
