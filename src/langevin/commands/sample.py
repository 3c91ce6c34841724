"""`langevin sample checkpoint=RUN_OR_FILE`: makes images with a trained model."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from langevin.cli import command

if TYPE_CHECKING:
    from langevin.config.validate import Mistake

OPTIONS = {
    "checkpoint": "str",
    "ema_width": "Annotated[float, Gt(0)] | None",
    "cascade": "list[str] | None",
    "num_samples": "Annotated[int, Ge(1)]",
    "size": "tuple[Annotated[int, Ge(1)], Annotated[int, Ge(1)]] | None",
    "seed": "Annotated[int, Ge(0)]",
    "labels": "int | list[int] | None",
    "prompt": "str | None | list[str]",
    "text.path": "str | None",
    "negative": "str | None | list[str]",
    "batch_size": "Annotated[int, Ge(1)]",
    "out": "str | None",
    "png": "bool",
    "trajectory": "Annotated[int, Ge(2)] | None",
    "edit.images": "str | None",
    "edit.strength": "Annotated[float, Gt(0), Le(1)]",
    "invert.images": "str | None",
    "measurement.images": "str | None",
    "measurement.originals": "str | None",
    "measurement.noise": "Annotated[float, Ge(0)]",
    "low_res.images": "str | None",
    "low_res.noise_level": "Annotated[float, Ge(0), Le(1)]",
    "low_res.truncated": "bool",
    "inpaint.images": "str | None",
    "inpaint.mask": "str | None",
    "hint.images": "str | None",
    "hint.hints": "str | None",
    "hint.scale": "Annotated[float, Ge(0)]",
    "overwrite": "bool",
    "trust": "list[str]",
    "accelerator": "str",
    "devices": "int | str",
    "output_dir": "str",
}


def check(cfg: DictConfig) -> None:
    """Find every mistake in the config that shows without the model.

    Raises:
        ConfigError: with all of them.
    """
    from langevin.assembly.components import SAMPLING
    from langevin.assembly.restoring import RESTORING, choice_mistakes
    from langevin.config.validate import ConfigError, Mistake, structure

    mistakes = cascade_mistakes(cfg)
    if mistakes:
        raise ConfigError(mistakes)
    options = OmegaConf.masked_copy(cfg, [str(name) for name in cfg if name not in SAMPLING])
    mistakes = structure(options, OPTIONS, optional=(*SAMPLING, *RESTORING))
    if not mistakes:
        places = {f"{name}.images": cfg[name].images for name in ("edit", "invert", "inpaint")}
        places["restoration"] = cfg.get("restoration")
        places["size"] = cfg.size
        given = [name for name, value in places.items() if value is not None]
        mistakes += [Mistake(name, f"is given beside {given[0]}; allowed: one of them") for name in given[1:]]
        if cfg.hint.images is not None and cfg.hint.hints is not None:
            mistakes.append(Mistake("hint.hints", "is given beside hint.images; allowed: one of them"))
        if cfg.low_res.truncated and cfg.cascade is None:
            text = "is true; allowed with cascade=[BASE,UP], whose first stage then stops while images are noisy"
            mistakes.append(Mistake("low_res.truncated", text))
        mistakes += choice_mistakes(cfg)
    if mistakes:
        raise ConfigError(mistakes)


def cascade_mistakes(cfg: DictConfig) -> "list[Mistake]":
    """What is wrong with a cascade beside other options; it sets the checkpoint, which is that of its last stage."""
    from langevin.config.validate import Mistake

    if cfg.get("cascade") is None:
        return []
    stages = cfg.cascade
    if not OmegaConf.is_list(stages) or len(stages) < 2:
        text = f"is {stages}; allowed: a list of at least two runs, a model of small images, then those that enlarge"
        return [Mistake("cascade", text)]
    given = [] if OmegaConf.is_missing(cfg, "checkpoint") else ["checkpoint"]
    images = ("size", "edit.images", "invert.images", "low_res.images", "hint.images", "hint.hints", "restoration")
    given += [name for name in (*images, "ema_width") if OmegaConf.select(cfg, name) is not None]
    cfg.checkpoint = str(stages[-1])
    return [Mistake(name, "is given beside cascade; leave one of them out") for name in given]


def run(cfg: DictConfig) -> None:
    """Sample by the config; the model is rebuilt from the config stored with its weights."""
    check(cfg)
    if cfg.cascade is not None:
        from langevin.assembly.cascade import fill_cascade

        fill_cascade(cfg)
        return

    from langevin.checkpoint import find_checkpoint, folder_of

    path = find_checkpoint(Path(cfg.checkpoint))

    from langevin.assembly.sampling import fill
    from langevin.filling import filling
    from langevin.processes import is_first_process

    out = Path(cfg.out) if cfg.out else folder_of(path) / "generated"
    with filling(out) if is_first_process() else nullcontext():
        fill(out, path, cfg)


main = command("sample", run, OPTIONS)

if __name__ == "__main__":
    main()
