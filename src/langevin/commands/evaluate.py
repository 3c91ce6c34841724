"""`langevin evaluate`: measures images (`samples=PLACE`), or a trained model (`checkpoint=RUN`)."""

from contextlib import nullcontext
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from langevin.cli import command

OPTIONS = {
    "samples": "str | None",
    "checkpoint": "str | None",
    "ema_width": "Annotated[float, Gt(0)] | None",
    "reference": "str | None",
    "target": "str | None",
    "num_samples": "Annotated[int, Ge(1)]",
    "labels": "int | list[int] | None",
    "prompt": "str | list[str] | None",
    "text.path": "str | None",
    "negative": "str | list[str] | None",
    "measurement.noise": "Annotated[float, Ge(0)]",
    "split": "Literal['train', 'test']",
    "num_images": "Annotated[int, Ge(1)] | None",
    "seed": "Annotated[int, Ge(0)]",
    "export": "str | None",
    "compare": "str | list[str] | None",
    "vary": "str | list[str]",
    "force": "bool",
    "trust": "list[str]",
    "out": "str | None",
    "batch_size": "Annotated[int, Ge(1)]",
    "accelerator": "str",
    "devices": "int | str",
    "output_dir": "str",
}
REQUIRED = ("loader", "features")
OPTIONAL = ("data", "captions", "metrics", "likelihoods")


def check(cfg: DictConfig) -> str:
    """Find every mistake in the config that shows without images or a model.

    Returns:
        The option that says what is to be done, such as "samples".

    Raises:
        ConfigError: with all mistakes.
    """
    from langevin.assembly.components import SAMPLING
    from langevin.assembly.restoring import RESTORING, choice_mistakes
    from langevin.config.signature import signature
    from langevin.config.types import TARGET
    from langevin.config.validate import ConfigError, Mistake, structure

    tasks = [name for name in ("samples", "checkpoint", "compare", "export") if cfg[name] is not None]
    of_model = tasks == ["checkpoint"]
    # Single fields of a model's own parts may be changed, which by themselves are not a component.
    checked = [str(name) for name in cfg if not (of_model and name in ("data", "captions", *SAMPLING))]
    mistakes = structure(OmegaConf.masked_copy(cfg, checked), OPTIONS, REQUIRED, (*OPTIONAL, *SAMPLING, *RESTORING))
    takers = []
    if not mistakes:
        metrics = cfg.get("metrics") or {}
        takers = [name for name, node in metrics.items() if "operator" in (signature(node[TARGET]) or {})]
    if not mistakes and cfg.get("likelihoods"):
        chosen = [group for group in (*SAMPLING, *RESTORING) if cfg.get(group)]
        chosen += [name for name in ("prompt", "negative", "labels") if cfg[name] is not None]
        mistakes += [
            Mistake(group, "is not used by likelihoods, which sample nothing; leave it out") for group in chosen
        ]
    elif not mistakes and (of_model or cfg.get("restoration")):
        mistakes += choice_mistakes(cfg, for_metrics=bool(takers))
    elif not mistakes:  # of samples, operators are for metrics
        if cfg.measurement.noise > 0:
            mistakes.append(Mistake("measurement.noise", "goes with restoration=NAME, such as restoration=ddnm"))
        if cfg.get("operators") and not takers:
            mistakes.append(Mistake("operators", "is used by no metric here; allowed: such as metrics=[consistency]"))
    if len(tasks) != 1:
        mistakes.append(
            Mistake("samples", "give one of samples=FILE_OR_DIR, checkpoint=RUN_OR_FILE, compare=PLACE or export=FILE")
        )
    if cfg.target is not None and tasks != ["samples"]:
        mistakes.append(Mistake("target", "goes with samples=FILE_OR_DIR; leave it out"))
    if cfg.text.path is not None and not of_model:
        mistakes.append(Mistake("text.path", "goes with checkpoint=RUN_OR_FILE; leave it out"))
    if cfg.prompt is not None and tasks not in (["samples"], ["checkpoint"]):
        mistakes.append(Mistake("prompt", "goes with checkpoint=RUN_OR_FILE or samples=FILE_OR_DIR; leave it out"))
    if cfg.negative is not None and not of_model:
        mistakes.append(Mistake("negative", "goes with checkpoint=RUN_OR_FILE; leave it out"))
    if cfg.ema_width is not None and not of_model:
        mistakes.append(Mistake("ema_width", "goes with checkpoint=RUN_OR_FILE; leave it out"))
    if not of_model:
        groups = [group for group in SAMPLING if group in cfg] + [group for group in RESTORING[:1] if cfg.get(group)]
        mistakes += [Mistake(group, "goes with checkpoint=RUN_OR_FILE; leave it out") for group in groups]
        if cfg.get("likelihoods"):
            mistakes.append(Mistake("likelihoods", "goes with checkpoint=; leave it out, and choose metrics=[fid]"))
    if "compare" not in tasks:
        neither = cfg.get("data") is None and cfg.reference is None
        is_known = neither and (of_model or cfg.target is not None)  # the model's own data, or the targets
        if not is_known and not cfg.get("likelihoods") and (cfg.reference is None) == (cfg.get("data") is None):
            mistakes.append(Mistake("reference", "give either reference=FILE_OR_DIR or data=NAME, and not both"))
        if cfg.get("likelihoods") and cfg.reference is not None:
            mistakes.append(Mistake("reference", "goes with metrics; likelihoods are measured on data=NAME"))
        if bool(cfg.get("metrics")) == bool(cfg.get("likelihoods")):
            or_likelihoods = " or likelihoods=[discrete_vlb], and not both" if of_model else ""
            mistakes.append(Mistake("metrics", f"choose at least one, such as metrics=[fid,kid]{or_likelihoods}"))
    if mistakes:
        raise ConfigError(mistakes)
    return tasks[0]


def run(cfg: DictConfig) -> None:
    """Measure what the config names: images or a model; or compare what was measured."""
    task = check(cfg)
    # Imported here, because Lightning and torch are slow to import and useless if the command has a mistake.
    if task == "compare":
        from langevin.evaluation.compare import compare

        places, vary = ([each] if isinstance(each, str) else list(each) for each in (cfg.compare, cfg.vary))
        compare(places, vary, cfg.force, cfg.out)
        return

    from langevin.assembly import evaluation
    from langevin.filling import filling
    from langevin.processes import is_first_process

    if task == "samples":
        # Where the samples are missing, no folder is made for them.
        out = evaluation.folder_of_values(cfg) if cfg.out or Path(cfg.samples).exists() else None
        measure = evaluation.evaluate_samples
    elif task == "checkpoint":
        out = Path(cfg.out) if cfg.out else None
        measure = evaluation.evaluate_likelihoods if cfg.get("likelihoods") else evaluation.evaluate_model
    else:
        out, measure = None, evaluation.export
    with filling(out) if out is not None and is_first_process() else nullcontext():
        measure(cfg)


main = command("evaluate", run, OPTIONS)

if __name__ == "__main__":
    main()
