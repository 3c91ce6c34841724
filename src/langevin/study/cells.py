"""The cells of a study: each combination of arms with its config, its name, and what is wrong with it."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from langevin.assembly.check import check_model, mistakes_in
from langevin.assembly.completion import complete
from langevin.assembly.components import SAMPLING, loaders
from langevin.assembly.make import try_instantiate
from langevin.assembly.saved import override
from langevin.cli import force_add_override
from langevin.commands.evaluate import OPTIONAL, OPTIONS, REQUIRED
from langevin.config.identity import PATHS, deciding, digest, flatten
from langevin.config.overrides import quoted as in_quotes
from langevin.config.types import plain
from langevin.config.validate import CONF, ConfigError, Mistake, groups_of, structure
from langevin.errors import UserError
from langevin.study.plan import FILE, Factors, Study, StudyError, combinations

MEASURED = ("metrics", "features", "evaluation", "likelihoods", *SAMPLING)
"""What does not affect what a run trains, but affects what it measures."""
NOT_OF_VALUES = ("batch_size", "accelerator", "devices", "output_dir", "loader")
"""The parts of an evaluation that do not change its values."""
PLAIN = re.compile(r"(?=.*[-/])[A-Za-z/][\w./-]*", re.ASCII)
"""A text that Hydra reads as it is: not a number, nor null, true, nan, ..."""


@dataclass(frozen=True)
class Cell:
    """One combination of arms, of training or of evaluating.

    Attributes:
        name: its arms, such as "cosine-small"; empty where nothing is varied.
        arms: of each factor.
        overrides: as Hydra takes them.
        cfg: the command's config.
        decides: what of it decides the values that come of it, by paths; the seed is not among it. Nor is where the
            data of training lies, for it may be moved.
    """

    name: str
    arms: Mapping[str, str]
    overrides: tuple[str, ...]
    cfg: DictConfig
    decides: Mapping[str, Any]

    @property
    def paths(self) -> dict[str, Any]:
        """Where its data lies."""
        return {path: OmegaConf.select(self.cfg, path) for path in PATHS}

    def named(self, *more: str) -> str:
        """Its name for a folder, which another config does not have."""
        return "-".join([*filter(None, [self.name]), *more, digest(dict(self.decides))])


@dataclass(frozen=True)
class Grid:
    """A study's cells.

    Attributes:
        study: the study.
        trained: the cells of training.
        evaluated: those of evaluating, each of which is made of each trained run; a single one of nothing where what
            runs measure in training is read.
        output_dir: where the runs lie.
    """

    study: Study
    trained: Sequence[Cell]
    evaluated: Sequence[Cell]
    output_dir: Path

    def run_dir(self, cell: Cell, seed: int) -> Path:
        """The folder of a run."""
        return self.output_dir / cell.named(f"seed{seed}")

    def evaluation_dir(self, cell: Cell, seed: int, evaluation: Cell) -> Path:
        """The folder of an evaluation of it."""
        return self.run_dir(cell, seed) / "evaluations" / evaluation.named()


def lay_out(study: Study) -> Grid:
    """Compose the config of every cell.

    Raises:
        UserError: with all errors that Hydra reports.
    """
    mistakes: list[Mistake] = []
    base = (f"output_dir={quoted(f'outputs/{study.name}')}", *study.base, *study.extra)
    trained = list(composed("train", base, study.factors, study.cells, trained_values, mistakes))
    of_evaluate = ("evaluate", study.evaluate_base, study.evaluate_factors, None, evaluated_values)
    evaluated = list(composed(*of_evaluate, mistakes))
    if mistakes:
        raise StudyError(study.folder / FILE, list(dict.fromkeys(mistakes)))
    mistakes += [*alike(trained), *alike(evaluated)]
    own = trained[0].cfg.output_dir
    if any(cell.cfg.output_dir != own for cell in trained):
        mistakes.append(Mistake("output_dir", "differs among the cells; allowed: one for all, in base"))
    if mistakes:
        raise StudyError(study.folder / FILE, mistakes)
    return Grid(study, trained, evaluated, Path(own))


def composed(
    command: str,
    base: Sequence[str],
    factors: Factors,
    chosen: Sequence[str] | None,
    decide: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    mistakes: list[Mistake],
) -> Iterator[Cell]:
    """The cells of a command, all or those that are chosen; Hydra's errors about others go to `mistakes`."""
    own = groups_of(command)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for name, arms in combinations(factors).items():
            if chosen is not None and name not in chosen:
                continue
            given = [*base, *(text for factor, arm in arms.items() for text in factors[factor][arm])]
            try:
                overrides = tuple(force_add_override(text, own) for text in given)
                cfg = compose(command, list(overrides))
                if command == "train":  # other runs decide by what they are; what is wrong with them is reported later
                    complete(cfg, {})
                yield Cell(name, arms, overrides, cfg, decide(plain(cfg)))
            except MissingConfigException as error:
                allowed = ", ".join(error.options or ())
                mistakes.append(Mistake(str(error.missing_cfg_file), f"there is no such option; allowed: {allowed}"))
            except (HydraException, OmegaConfBaseException, UserError) as error:
                mistakes.append(Mistake(name or command, str(error).partition("\n")[0]))


def quoted(text: str) -> str:
    """A text as the value of an override, whatever is in it; unchanged where Hydra reads it as that text."""
    return text if PLAIN.fullmatch(text) else in_quotes(text)


def trained_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a run's plain config that determines what it trains and measures, for any seed."""
    measured = {group: values[group] for group in MEASURED if group in values}
    validated = {path: value for path, value in flatten(values) if path == "trainer.limit_val_batches"}
    found = deciding(values) | dict(flatten(measured)) | validated
    found.pop("seed", None)
    return found


def evaluated_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an evaluation's plain config that determines its values."""
    return dict(flatten({key: value for key, value in values.items() if key not in NOT_OF_VALUES}))


def alike(cells: Sequence[Cell]) -> Iterator[Mistake]:
    """The cells that are one and the same config."""
    first: dict[str, Cell] = {}
    for cell in cells:
        other = first.setdefault(digest({**cell.decides, **cell.paths}), cell)
        if other is not cell:
            yield Mistake(cell.name, f"is the same config as {other.name}; allowed: arms that differ")


def mistakes_of(grid: Grid) -> list[Mistake]:
    """All mistakes in the configs of all cells that show without data, each with the cells that have it."""
    from langevin.assembly.run import dry_build  # takes seconds, for it imports Lightning

    cells: dict[Mistake, list[str]] = {}
    for cell in grid.trained:
        found = mistakes_in(cell.cfg) or [*dry_build(cell.cfg), *unmeasured(grid.study, cell.cfg)]
        for mistake in found:
            cells.setdefault(mistake, []).append(cell.name)
        for evaluation in grid.evaluated if grid.study.evaluates and not found else ():
            for path, text in mistakes_in_evaluation(cell.cfg, evaluation.cfg):
                cells.setdefault(Mistake(f"evaluate: {path}", text), []).append(evaluation.name)
    resources = {(cell.cfg.trainer.devices, cell.cfg.trainer.num_nodes) for cell in grid.trained}
    if not cells and len(resources) > 1:
        return [Mistake("trainer.devices", "differs among the cells; allowed: the same resources for all")]
    everywhere = {len(grid.trained), len(grid.trained) * len(grid.evaluated)}
    return [
        Mistake(path, text if len(names) in everywhere else f"{text} (in {', '.join(dict.fromkeys(names))})")
        for (path, text), names in cells.items()
    ]


def mistakes_in_evaluation(run: DictConfig, evaluation: DictConfig) -> list[Mistake]:
    """The mistakes in an evaluation of what a run will have trained."""
    own = [str(key) for key in evaluation if key not in ("data", *SAMPLING)]  # whose single fields may be changed
    mistakes = structure(OmegaConf.masked_copy(evaluation, own), OPTIONS, REQUIRED, (*OPTIONAL, *SAMPLING))
    if not evaluation.get("metrics"):
        mistakes.append(Mistake("evaluate.base", "must choose at least one metric, such as metrics=[fid]"))
    if mistakes:
        return mistakes
    trained = OmegaConf.create(plain(run))  # as checkpoints hold it
    chosen = override(trained, evaluation, (*SAMPLING, "data", "loader"))
    for group in ("features", "metrics"):
        chosen[group] = evaluation[group]
    try:
        check_model(chosen, (*SAMPLING, "data", "loader", "features", "metrics"))
    except ConfigError as error:
        return error.mistakes
    paths = ("features", *(f"metrics.{name}" for name in chosen.metrics))
    return [mistake for path in paths for mistake in try_instantiate(chosen, path, **loaders(chosen))[1]]


def unmeasured(study: Study, cfg: DictConfig) -> Iterator[Mistake]:
    """The measures that a run will not have at its last step."""
    trainer = cfg.trainer
    every = {"val": "val_check_interval", "train": "log_every_n_steps"}
    for measure in study.measures:
        source = measure.partition("/")[0]
        if source == "eval" and not cfg.get("metrics"):
            yield Mistake(f"measures.{measure}", "needs samples, but no metric is chosen; choose metrics=[...]")
        elif source in every and (trainer[every[source]] is None or trainer.max_steps % trainer[every[source]]):
            lacks = f"is not measured at the last step, {trainer.max_steps}"
            yield Mistake(f"measures.{measure}", f"{lacks}; set trainer.{every[source]} to a divisor of that")
