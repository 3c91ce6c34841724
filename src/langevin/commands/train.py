"""`langevin train`: trains a model, or resumes its training."""

import platform
import re
import shlex
import subprocess
import warnings
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from langevin.cli import command, command_line
from langevin.commands.run_folder import clear, clear_unfinished, quarantine_corrupt, run_lock
from langevin.config.identity import PATHS, automatic_name, debug_of, differences
from langevin.config.options import RUN_OPTIONS
from langevin.config.stored import read_held, read_stored
from langevin.config.types import plain
from langevin.content import FILE, Content, alike, read_content
from langevin.content import differences as other_data
from langevin.early_stop import last_step, stop_at
from langevin.errors import UserError
from langevin.interop.origin import ORIGIN
from langevin.logged import last_values, matching
from langevin.sessions import session
from langevin.spec import DataSpec
from langevin.visible import visible_lines

if TYPE_CHECKING:
    import torch

    from langevin.data.source import Source
    from langevin.diffusion.auxiliary import Teacher

CONFIG = "config.yaml"


def run(cfg: DictConfig) -> Path:
    """Train by the config, from the run's last checkpoint if it has one.

    Returns:
        The run's folder.
    """
    from langevin.assembly.check import mistakes_in
    from langevin.config.validate import ConfigError

    # Most mistakes show without Lightning, which takes seconds to import, and are reported first.
    teachers: dict[str, Teacher] = {}
    if mistakes := mistakes_in(cfg, teachers):
        raise ConfigError(mistakes)

    import torch

    from langevin.assembly.captions import encode_captions
    from langevin.assembly.init_run import start_from
    from langevin.assembly.latents import encode_data
    from langevin.assembly.origins import origin_of_run
    from langevin.assembly.run import dry_build, make_data, make_module, make_trainer
    from langevin.assembly.tasks import task_of
    from langevin.checkpoint import newest_of
    from langevin.data.summary import summary
    from langevin.files import write_atomically, write_json
    from langevin.processes import is_first_process
    from langevin.training.callbacks.snapshots import room_of
    from langevin.training.loggers.csv import CSVFile
    from langevin.training.loggers.tensorboard import TensorBoard
    from langevin.training.profiler import FOLDER as PROFILE

    warnings.filterwarnings("ignore", "Found .* module.* in eval mode")  # the EMA network, which never trains
    warnings.filterwarnings("ignore", ".*`srun` command is available")  # Lightning's advice
    warnings.filterwarnings("ignore", ".*does not have many workers")  # a batch is an index into memory
    warnings.filterwarnings("ignore", "Total length of .* across ranks is zero")  # data without a test split
    warnings.filterwarnings("ignore", r".*self\.log\('(step|val/.*)', \.\.\., sync_dist=True\)")  # are reduced by us
    warnings.filterwarnings("ignore", ".*treespec, LeafSpec")  # Lightning's own
    warnings.filterwarnings("ignore", "FSDP2-wrapped .*(Chain|SelfAttention|DiT). returned a view")  # never written
    if mistakes := dry_build(cfg):
        raise ConfigError(mistakes)
    if cfg.accept_data and not cfg.name:
        raise UserError(
            "accept_data is true; allowed with name=NAME, the folder under output_dir of the run to continue"
        )
    is_debug = debug_of(HydraConfig.get().runtime.choices) is not None
    if cfg.name and not is_debug and is_first_process():
        refuse_another_run(Path(cfg.output_dir) / cfg.name, cfg)
    data = make_data(cfg)
    try:
        data.prepare_data()  # before a run is chosen, because what the data is decides which one it is
    except UserError as error:
        if is_debug or (done := done_without(data.source, cfg)) is None:
            raise
        say(f"{done} is done: it stands at trainer.max_steps={cfg.trainer.max_steps}; its data is not there ({error})")
        return done
    spec, content = data.spec, data.content
    run_dir = Path(cfg.output_dir) / cfg.name if cfg.name else own_folder(cfg, content)
    if is_debug:
        checkpoint = None
    else:
        if not cfg.name and is_first_process():
            refuse_another_run(run_dir, cfg)
        refuse_other_data(run_dir, content, cfg.accept_data)
        checkpoint = newest_of(run_dir)
    step = 0 if checkpoint is None else step_of(checkpoint, cfg, content)
    if checkpoint is not None and step >= last_step(run_dir, cfg.trainer, plain(cfg).get("callbacks")):
        stop = stop_at(run_dir, step)
        early = "" if stop is None else f"; it stopped early, {stop['why']}"
        say(f"{run_dir} is done: it stands at step {step} of trainer.max_steps={cfg.trainer.max_steps}{early}")
        return run_dir

    if (read := summary(data)) is not None:
        say(read)
    if not HydraConfig.get().overrides.task:
        say(nothing_chosen(cfg))
    torch.manual_seed(cfg.seed)
    module = make_module(cfg, spec, teachers)
    if checkpoint is None:
        networks = (module.model.network, module.ema.network)
        started = start_from(cfg, networks, module.codec.spec(spec))
        if started is not None:
            say(started)
    origin = origin_of_run(cfg, checkpoint)
    trainer = make_trainer(cfg, run_dir, spec, data, module.codec, origin)
    encode_data(cfg, module.codec, data, trainer.strategy.root_device)
    encode_captions((module.model.network, module.ema.network), data, trainer.strategy.root_device)
    parameters = sum(weight.numel() for weight in module.model.parameters())
    trained = sum(weight.numel() for weight in module.model.parameters() if weight.requires_grad)
    samples = f"{data.number:,} {data.source.modality.noun} of {spec.shape}"
    where = f"{trainer.strategy.root_device.type} x {trainer.world_size}"
    share = "" if trained == parameters else f", {trained:,} of them trained"
    size = f"{parameters:,} parameters{share}"
    say(f"{run_dir}: from step {step} to {cfg.trainer.max_steps}; {samples}, {size}, on {where}")
    if (room := room_of(module.ema, step, cfg.trainer.max_steps)) is not None:
        say(room)
    with ExitStack() as stack:
        if is_first_process():
            stack.enter_context(run_lock(run_dir))
            clear(run_dir) if is_debug else clear_unfinished(run_dir)
            if checkpoint is not None:
                quarantine_corrupt(checkpoint)
            write_json(run_dir / FILE, content.plain())
            if origin:
                write_json(run_dir / ORIGIN, origin)
            text = OmegaConf.to_yaml(cfg, resolve=True)
            write_atomically(run_dir / CONFIG, lambda file: file.write(text.encode()))
            hardware = f"{trainer.world_size} x {device_name(trainer.strategy.root_device)}"
            session_info = {"command": command_line("train"), "hardware": hardware, "code": code_version()}
            stack.enter_context(session(run_dir, lambda: max(step, trainer.global_step), **session_info))
        for logger in trainer.loggers:
            if isinstance(logger, CSVFile | TensorBoard):
                logger.resume(step)
            logger.log_hyperparams(plain(cfg) | {"parameters": parameters, "code": code_version()})
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    if cfg.trainer.profiler is not None:
        say(f"the profile is in {run_dir / PROFILE}")
    say(f"saved in {run_dir}; next: {task_of(cfg).use.format(run=shlex.quote(str(run_dir)))}")
    return run_dir


def nothing_chosen(cfg: DictConfig) -> str:
    """What a command without any option trains, which few mean who try it first."""
    chosen = " ".join(
        f"{group}={HydraConfig.get().runtime.choices[group]}" for group in ("data", "model", "formulation")
    )
    return (
        f"no option is given, so the defaults are trained: {chosen}, {cfg.trainer.max_steps:,} steps, hours on a CPU "
        "(Ctrl-C saves and stops); for a model of handwritten digits in a minute: langevin train experiment=digits"
    )


def done_without(source: "Source", cfg: DictConfig) -> Path | None:
    """The run that a config means, if it is done and its data, which it records, is gone from where it lay then.

    Raises:
        UserError: when its checkpoint is damaged, or another run's.
    """
    from langevin.checkpoint import newest_of

    try:
        source.check()
    except UserError:
        output, choices = Path(cfg.output_dir), HydraConfig.get().runtime.choices
    else:  # it is there, and something else is wrong with it
        return None
    for run_dir in [output / cfg.name] if cfg.name else sorted(output.glob("*")):
        held = read_content(run_dir) if (run_dir / CONFIG).is_file() else None
        if held is None or not (cfg.name or run_dir.name == automatic_name(cfg, choices, held.sha256)):
            continue
        checkpoint = newest_of(run_dir) if have_same_paths(read_held(run_dir / CONFIG), cfg) else None
        end = last_step(run_dir, cfg.trainer, plain(cfg).get("callbacks"))
        if checkpoint is not None and step_of(checkpoint, cfg, held) >= end:
            return run_dir
    return None


def have_same_paths(old: DictConfig, cfg: DictConfig) -> bool:
    """Whether two configs read their data from the same paths."""
    return all(OmegaConf.select(old, path) == OmegaConf.select(cfg, path) for path in PATHS)


def own_folder(cfg: DictConfig, content: Content) -> Path:
    """The folder of a run without a name.

    Old runs were named without their data. Such a run is resumed in its folder if it has recorded the same data since,
    or has recorded none and its data path is the same.
    """
    output, choices = Path(cfg.output_dir), HydraConfig.get().runtime.choices
    run_dir, before = (output / automatic_name(cfg, choices, digest) for digest in (content.sha256, None))
    if (run_dir / CONFIG).is_file() or not (before / CONFIG).is_file():
        return run_dir
    held, old = read_content(before), read_held(before / CONFIG)
    return before if held == content or (held is None and have_same_paths(old, cfg)) else run_dir


def refuse_other_data(run_dir: Path, content: Content, accept: bool) -> None:
    """Check that a run is resumed on the data that it was started with, whatever its path.

    Args:
        run_dir: the run's folder.
        content: the current data.
        accept: whether it is taken for the same if it has as many images of the same classes.

    Raises:
        UserError: when it is not.
    """
    held = read_content(run_dir) if (run_dir / CONFIG).is_file() else None
    if held is not None and (changed := other_data(held, content)):
        if alike(held, content) and accept:
            say(f"{run_dir} was trained on data of another digest, which accept_data=true takes to be the same")
            return
        lines = "\n".join(f"  {line}" for line in changed)
        other_decoder = (
            "; or, if the files are the same and another version of the image decoder (Pillow) reads them "
            "slightly differently, as can happen with JPEG, resume with accept_data=true"
        )
        raise UserError(
            f"name={run_dir.name}: that run was trained on other data; choose another name=, or leave name out and "
            f"each data set gets its own{other_decoder if alike(held, content) else ''}:\n{lines}"
        )


def refuse_another_run(run_dir: Path, cfg: DictConfig) -> None:
    """Check that the run's folder is new, or holds this very run and may be resumed.

    Raises:
        UserError: when it may not.
    """
    if not (run_dir / CONFIG).is_file():
        return
    if not cfg.resume:
        raise UserError(f"resume=false, but the run {run_dir} exists; choose another name=, or remove that folder")
    old = read_held(run_dir / CONFIG)
    if "data" not in old:
        raise UserError(
            f"name={run_dir.name}: that run holds an imported model, which cannot be resumed; choose another name="
        )
    changed = differences(old, cfg)
    if changed:
        lines = "\n".join(f"  {line}" for line in changed)
        raise UserError(
            f"name={run_dir.name}: that run exists with another config; choose another name=, or leave name out "
            f"and each config gets its own:\n{lines}"
        )


def step_of(checkpoint: Path, cfg: DictConfig, content: Content) -> int:
    """The step of a checkpoint of this run.

    Prints a notice if nothing records which data it was trained on, and if what remains to be trained has random
    numbers of another version.

    Raises:
        UserError: when it is another run's.
    """
    from langevin.checkpoint import DRAWS, RECORD, folder_of, read_checkpoint
    from langevin.diffusion.draws import BatchDraws

    stored = read_checkpoint(checkpoint)
    record = stored[RECORD]
    try:
        own, spec = read_stored(record["config"]), DataSpec.read(record["spec"])
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f"checkpoint {checkpoint} cannot be resumed: its record is malformed ({error})") from error
    if changed := differences(own, cfg):
        lines = "\n".join(f"  {line}" for line in changed)
        raise UserError(f"checkpoint {checkpoint} is of a run with another config; put it where it belongs:\n{lines}")
    if type(stored.get("global_step")) is not int:
        raise UserError(f"checkpoint {checkpoint} cannot be resumed: it has no step (global_step)")
    trained_on = spec.content
    if trained_on not in (None, content.sha256) and not cfg.accept_data:
        raise UserError(
            f"checkpoint {checkpoint} is of a run on other data; put it where it belongs, or give that data:\n"
            f"  content: sha256 {str(trained_on)[:8]} in the run, {content.sha256[:8]} now"
        )
    run_dir = folder_of(checkpoint)
    if trained_on is None and read_content(run_dir) is None:
        place = OmegaConf.select(cfg, "data.path")
        given = "data" if place is None else f"data.path={place}"
        say(f"{run_dir} does not record which data it was trained on; {given} is taken to be the same")
    version = stored.get(DRAWS, 1)
    if version != BatchDraws.VERSION and stored["global_step"] < cfg.trainer.max_steps:
        say(
            f"{run_dir}: random numbers of training are drawn otherwise since it was saved (now version "
            f"{BatchDraws.VERSION}, then {version}); the run continues with the new ones"
        )
    return stored["global_step"]


def device_name(device: "torch.device") -> str:
    """What a device is called: a GPU by its own name, a CPU by its model name where known."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        models = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        models = []
    return models[0] if device.type == "cpu" and models else f"{device.type} ({platform.machine()})"


@cache
def code_version() -> str:
    """The version of this code: its git commit where there is one, marked when files are changed.

    It is looked up once: what a process has imported stays, whatever becomes of the files.
    """
    from langevin import __version__

    describe = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return f"{__version__} {subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()}"
    except (OSError, subprocess.CalledProcessError):
        return __version__


def say(message: str) -> None:
    """Print a line once, whatever the number of processes."""
    from langevin.processes import is_first_process

    if is_first_process():
        print(visible_lines(message), flush=True)


def optimized(cfg: DictConfig) -> float | None:
    """Train by the config; see `run`.

    Returns:
        The last value of what `optimized_metric` names, for a sweeper of Hydra that searches for its optimum; None
        where nothing is named, and on all processes but the first.

    Raises:
        UserError: when the run has not logged it.
    """
    run_dir = run(cfg)
    from langevin.processes import is_first_process

    if cfg.optimized_metric is None or not is_first_process():
        return None
    values = last_values(run_dir / "metrics.csv", [])
    found = matching(cfg.optimized_metric, values)
    if len(found) != 1:
        what = f"fits {', '.join(found)}" if found else "was not logged"
        raise UserError(f"optimized_metric={cfg.optimized_metric} {what}; allowed: one of {', '.join(values)}")
    return values[found[0]][0]


main = command("train", optimized, RUN_OPTIONS)

if __name__ == "__main__":
    main()
