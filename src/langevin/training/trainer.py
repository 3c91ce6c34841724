"""The Lightning trainer, with the settings that every run of ours has."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch.loggers import Logger

from langevin.errors import OptionError, UserError
from langevin.training.callbacks.checkpoint import Checkpoint
from langevin.training.callbacks.interruption import Interruption
from langevin.training.checkpoint import AtomicCheckpointIO
from langevin.training.profiler import make_profiler
from langevin.training.strategy import Shares


def make_trainer(
    run_dir: Path,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger],
    accelerator: str = "auto",
    devices: int | str = 1,
    num_nodes: Annotated[int, Ge(1)] = 1,
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true", "fsdp"] = "auto",
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true",
    max_steps: Annotated[int, Ge(1)] = 100_000,
    accumulate_grad_batches: Annotated[int, Ge(1)] = 1,
    gradient_clip_val: Annotated[float, Gt(0)] | None = 1.0,
    val_check_interval: Annotated[int, Ge(1)] | None = 1000,
    limit_val_batches: int | float = 1.0,
    log_every_n_steps: Annotated[int, Ge(1)] = 50,
    deterministic: bool = False,
    benchmark: bool | None = None,
    profiler: Literal["simple", "advanced", "pytorch"] | None = None,
    detect_anomaly: bool = False,
) -> Trainer:
    """Make a `Trainer`; the arguments from `accelerator` on are Lightning's own, under their own names.

    Training is counted in optimizer steps: the images come as one endless stream, so there are no epochs to count.

    Args:
        run_dir: the run's folder.
        callbacks: what is done periodically.
        loggers: where the numbers go.
        accelerator: "auto", "cpu", "gpu", "mps".
        devices: processes on each node, or "auto".
        num_nodes: machines.
        strategy: "auto", "ddp", "ddp_find_unused_parameters_true" for a network that at times leaves some out, or
            "fsdp", for models too large for one GPU (see `Shares`): each process holds a shard of weights, gradients,
            optimizer state and EMA weights, 20 bytes a parameter (Adam) over the number of processes. During a step it
            also holds the weights of two blocks and of what lies outside all blocks (under bf16-mixed all of them in
            bfloat16), and in validation, sampling and evaluation the full EMA weights, 4 bytes a parameter.
        precision: of the forward and backward pass; weights, EMA weights and samples stay in float32.
        max_steps: the optimizer steps of the whole run.
        accumulate_grad_batches: micro-batches that make one optimizer step.
        gradient_clip_val: the gradient's largest norm; None for no clipping.
        val_check_interval: optimizer steps between validations; None for none.
        limit_val_batches: validate on so many batches (int), or on this fraction of them (float).
        log_every_n_steps: optimizer steps between rows of the log.
        deterministic: only deterministic algorithms.
        benchmark: let cuDNN choose its algorithms by timing them; None leaves that to Lightning.
        profiler: see `make_profiler`.
        detect_anomaly: stop where a gradient becomes NaN.

    Raises:
        UserError: when the machine does not have the requested devices.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # of its tips and settings
    in_job = SLURMEnvironment.detect()
    # With another number of processes Lightning would train several times over, or on a part of the data.
    tasks = os.environ.get("SLURM_NTASKS") if in_job else None
    if tasks is not None and isinstance(devices, int) and int(tasks) != devices * num_nodes:
        raise OptionError(
            "devices",
            f"is {devices} and num_nodes={num_nodes}, but SLURM started {tasks} tasks; allowed: "
            f"--ntasks-per-node equal to trainer.devices, and --nodes to trainer.num_nodes",
        )
    processes = os.environ["WORLD_SIZE"] if TorchElasticEnvironment.detect() else None
    if processes is not None and isinstance(devices, int) and int(processes) != devices * num_nodes:
        raise OptionError(
            "devices",
            f"is {devices} and num_nodes={num_nodes}, but torchrun started {processes} processes; allowed: "
            f"--nproc-per-node equal to trainer.devices, and --nnodes to trainer.num_nodes",
        )
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        text = f"is {accelerator}, but torch finds no NVIDIA GPU on this machine; allowed here: auto, cpu"
        raise OptionError("accelerator", text)
    if strategy == "fsdp" and precision == "16-mixed":
        raise OptionError("precision", f"is {precision}; allowed with strategy=fsdp: 32-true, bf16-mixed")
    checkpoint = next((callback for callback in callbacks if isinstance(callback, Checkpoint)), None)
    try:
        trainer = Trainer(
            default_root_dir=run_dir,
            callbacks=[*callbacks, Interruption(checkpoint)],
            logger=list(loggers),
            accelerator=accelerator,
            devices=devices,
            num_nodes=num_nodes,
            strategy=Shares() if strategy == "fsdp" else strategy,
            precision=precision,
            max_steps=max_steps,
            accumulate_grad_batches=accumulate_grad_batches,
            gradient_clip_val=gradient_clip_val,
            # Lightning counts this one in micro-batches.
            val_check_interval=None if val_check_interval is None else val_check_interval * accumulate_grad_batches,
            check_val_every_n_epoch=None,
            limit_val_batches=0 if val_check_interval is None else limit_val_batches,
            num_sanity_val_steps=0,
            log_every_n_steps=log_every_n_steps,
            deterministic=deterministic,
            benchmark=benchmark,
            profiler=make_profiler(profiler, run_dir),
            detect_anomaly=detect_anomaly,
            # Lightning would save within the signal's handler, where its ranks wait for each other for ever.
            plugins=[AtomicCheckpointIO(), *([SLURMEnvironment(auto_requeue=False)] if in_job else [])],
            # Lightning would else add its own where there is none.
            enable_checkpointing=any(isinstance(each, lightning_callbacks.Checkpoint) for each in callbacks),
            enable_progress_bar=any(isinstance(each, lightning_callbacks.ProgressBar) for each in callbacks),
            enable_model_summary=False,
            use_distributed_sampler=False,  # the stream of images knows its ranks
        )
    except (MisconfigurationException, ValueError, RuntimeError, TypeError) as error:
        raise UserError(str(error).strip()) from error
    if precision == "16-mixed" and trainer.strategy.root_device.type == "cpu":
        raise OptionError(
            "precision", "is 16-mixed; allowed on a CPU, where Lightning would take bf16: 32-true, bf16-mixed"
        )
    # At every step Lightning exchanges SIGTERM between the ranks, and waits for the device; `Interruption` handles all
    # signals.
    loop = trainer.fit_loop.epoch_loop
    if hasattr(loop, "_broadcast_sigterm_tensor"):
        loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    if strategy == "fsdp" and trainer.world_size == 1:
        raise OptionError(
            "strategy",
            f"is fsdp; allowed with several processes, and devices={devices}, num_nodes={num_nodes} is one, "
            "which would hold all shards: set trainer.devices, or trainer.strategy=auto",
        )
    return trainer
