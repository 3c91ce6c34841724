"""`python train.py`: trains a model, or goes on training it."""

import logging
import os
import subprocess
import warnings
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from langevin.cli import command
from langevin.config.identity import automatic_name, differences, flatten
from langevin.errors import UserError


def run(cfg: DictConfig) -> None:
    """Train what the config says, from the run's last checkpoint if it has one."""
    from langevin.build.components import check

    check(cfg)

    # Lightning takes seconds to import, so mistakes are told first.
    import torch

    from langevin.build.run import facts_of, make_data, make_module, make_trainer, rehearse
    from langevin.training.checkpoint import read_checkpoint
    from langevin.training.loggers.csv import CSVFile

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # of its tips and settings
    warnings.filterwarnings("ignore", "Found .* module.* in eval mode")  # the averaged network, which never trains
    warnings.filterwarnings("ignore", ".*does not have many workers")  # a batch is an index into memory
    warnings.filterwarnings("ignore", ".*treespec, LeafSpec", DeprecationWarning)  # Lightning's own
    rehearse(cfg)
    run_dir = Path(cfg.output_dir) / (cfg.name or automatic_name(cfg, HydraConfig.get().runtime.choices))
    checkpoint = run_dir / "checkpoints" / "last.ckpt"
    first = os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("NODE_RANK", "0") == "0"
    settle(run_dir, cfg, write=first)
    step = read_checkpoint(checkpoint)["global_step"] if checkpoint.is_file() else 0
    if step >= cfg.trainer.max_steps:
        say(f"{run_dir} is done: it stands at step {step} of trainer.max_steps={cfg.trainer.max_steps}", first)
        return

    data = make_data(cfg)
    data.prepare_data()
    facts = facts_of(data)
    torch.manual_seed(cfg.seed)
    module = make_module(cfg, facts)
    trainer = make_trainer(cfg, run_dir, facts, data)
    parameters = sum(weight.numel() for weight in module.denoiser.parameters())
    state = f"from step {step}" if step else "from the start"
    say(
        f"{run_dir}: {state} to {cfg.trainer.max_steps}; {len(data.train_set):,} pictures of {facts.shape}, "
        f"{parameters:,} parameters, on {trainer.strategy.root_device.type} x {trainer.world_size}",
        first,
    )
    for logger in trainer.loggers:
        if isinstance(logger, CSVFile):
            logger.resume(step)
        logger.log_hyperparams(dict(flatten(cfg)) | {"parameters": parameters, "code": code_version()})
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint if step else None, weights_only=True)


def settle(run_dir: Path, cfg: DictConfig, write: bool) -> None:
    """Make the run's folder ours: refuse one of another config, or any where `resume` is false.

    Raises:
        UserError: when the folder holds another run.
    """
    kept = run_dir / "config.yaml"
    # Under DDP, the first process has already written the file when the others come here.
    if kept.is_file() and write:
        if not cfg.resume:
            raise UserError(f"resume=false, but the run {run_dir} exists; choose another name=, or remove that folder")
        old = OmegaConf.load(kept)
        assert isinstance(old, DictConfig)
        changed = differences(old, cfg)
        if changed:
            lines = "\n".join(f"  {line}" for line in changed)
            raise UserError(
                f"name={run_dir.name}: that run exists with another config; choose another name=, or leave name out "
                f"and each config gets its own:\n{lines}"
            )
    if write:
        from langevin.images import write_atomically

        text = OmegaConf.to_yaml(cfg, resolve=True)
        write_atomically(kept, lambda file: file.write(text.encode()))


def code_version() -> str:
    """The version of this code: its git commit where there is one, marked when files are changed."""
    from langevin import __version__

    describe = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return f"{__version__} {subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()}"
    except (OSError, subprocess.CalledProcessError):
        return __version__


def say(message: str, first: bool) -> None:
    """Print a line once, whatever the number of processes."""
    if first:
        print(message, flush=True)


main = command("train", run)

if __name__ == "__main__":
    main()
