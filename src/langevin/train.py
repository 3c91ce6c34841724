"""`python train.py`: trains a model, or goes on training it."""

import logging
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from langevin.cli import command
from langevin.config.identity import automatic_name, differences, flatten
from langevin.config.types import plain
from langevin.errors import UserError

CONFIG = "config.yaml"


def run(cfg: DictConfig) -> None:
    """Train what the config says, from the run's last checkpoint if it has one."""
    from langevin.build.check import mistakes_in
    from langevin.config.validate import ConfigError

    # Most mistakes show without Lightning, which takes seconds to import, and are told first.
    if mistakes := mistakes_in(cfg):
        raise ConfigError(mistakes)

    import torch

    from langevin.build.run import facts_of, make_data, make_module, make_trainer, rehearse
    from langevin.checkpoint import read_checkpoint
    from langevin.images import write_atomically
    from langevin.training.loggers.csv import CSVFile
    from langevin.training.processes import is_first_process

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # of its tips and settings
    warnings.filterwarnings("ignore", "Found .* module.* in eval mode")  # the averaged network, which never trains
    warnings.filterwarnings("ignore", ".*does not have many workers")  # a batch is an index into memory
    warnings.filterwarnings("ignore", "Total length of .* across ranks is zero")  # data without a test split
    warnings.filterwarnings("ignore", ".*treespec, LeafSpec")  # Lightning's own
    if mistakes := rehearse(cfg):
        raise ConfigError(mistakes)
    run_dir = Path(cfg.output_dir) / (cfg.name or automatic_name(cfg, HydraConfig.get().runtime.choices))
    if is_first_process():
        refuse_another_run(run_dir, cfg)
    checkpoint = run_dir / "checkpoints" / "last.ckpt"
    step = read_checkpoint(checkpoint)["global_step"] if checkpoint.is_file() else 0
    if step >= cfg.trainer.max_steps:
        say(f"{run_dir} is done: it stands at step {step} of trainer.max_steps={cfg.trainer.max_steps}")
        return

    data = make_data(cfg)
    data.prepare_data()
    facts = facts_of(data)
    torch.manual_seed(cfg.seed)
    module = make_module(cfg, facts)
    trainer = make_trainer(cfg, run_dir, facts, data)
    parameters = sum(weight.numel() for weight in module.model.parameters())
    say(
        f"{run_dir}: from step {step} to {cfg.trainer.max_steps}; {len(data.train_set):,} pictures of {facts.shape}, "
        f"{parameters:,} parameters, on {trainer.strategy.root_device.type} x {trainer.world_size}"
    )
    with ExitStack() as stack:
        if is_first_process():
            stack.enter_context(only_one(run_dir))
            for unfinished in checkpoint.parent.glob(".*"):
                unfinished.unlink()  # of a process killed while it was saving
            text = OmegaConf.to_yaml(cfg, resolve=True)
            write_atomically(run_dir / CONFIG, lambda file: file.write(text.encode()))
        for logger in trainer.loggers:
            if isinstance(logger, CSVFile):
                logger.resume(step)
            logger.log_hyperparams(dict(flatten(plain(cfg))) | {"parameters": parameters, "code": code_version()})
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint if step else None, weights_only=True)


def refuse_another_run(run_dir: Path, cfg: DictConfig) -> None:
    """See that the run's folder is new, or holds this very run and may be continued.

    Raises:
        UserError: when it may not.
    """
    if not (run_dir / CONFIG).is_file():
        return
    if not cfg.resume:
        raise UserError(f"resume=false, but the run {run_dir} exists; choose another name=, or remove that folder")
    old = OmegaConf.load(run_dir / CONFIG)
    assert isinstance(old, DictConfig)
    if "data" not in old:
        raise UserError(f"name={run_dir.name}: that run holds an imported model, of no training; choose another name=")
    changed = differences(old, cfg)
    if changed:
        lines = "\n".join(f"  {line}" for line in changed)
        raise UserError(
            f"name={run_dir.name}: that run exists with another config; choose another name=, or leave name out "
            f"and each config gets its own:\n{lines}"
        )


@contextmanager
def only_one(run_dir: Path) -> Iterator[None]:
    """Hold the run's folder against a second process that trains the same run; a killed process lets go of it.

    Raises:
        UserError: when another process holds it.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(run_dir / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise UserError(f"the run {run_dir} is being trained by another process; wait for it, or stop it") from error


def code_version() -> str:
    """The version of this code: its git commit where there is one, marked when files are changed."""
    from langevin import __version__

    describe = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return f"{__version__} {subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()}"
    except (OSError, subprocess.CalledProcessError):
        return __version__


def say(message: str) -> None:
    """Print a line once, whatever the number of processes."""
    from langevin.training.processes import is_first_process

    if is_first_process():
        print(message, flush=True)


main = command("train", run)

if __name__ == "__main__":
    main()
