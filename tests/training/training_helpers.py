"""Tiny real runs, in this process: one takes about a second, of which Hydra has half."""

import csv
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from helpers.commands import ROOT, call
from helpers.processes import Script, command
from torch.distributed.tensor import DTensor

from langevin.checkpoint import read_checkpoint

# A class-conditional run in which all random numbers there are play a part: times, noise, dropout, dropped labels.
TINY = (
    "data=digits",
    "model=unet_small",
    "conditions=[class_label]",
    "conditions.class_label.dropout=0.3",
    "schedule=cosine",
    "model.channels=32",
    "model.channel_multipliers=[1]",
    "model.dropout=0.1",
    "batch_size=8",
    "optimizer.lr=1e-3",
    "lr_schedule.steps=4",
    "ema.max_decay=0.9",
    "trainer.accelerator=cpu",
    "trainer.max_steps=6",
    "trainer.log_every_n_steps=1",
    "trainer.val_check_interval=null",
    "sampler.steps=2",
    "evaluation.num_samples=8",
    "evaluation.batch_size=8",
)
# The least that a run needs.
QUIET = ("callbacks=[checkpoint,progress]", "callbacks.progress.every_n_steps=1")
# Images, trajectories and metrics every other step.
BUSY = (
    "callbacks=[progress,samples,trajectory,checkpoint]",
    "callbacks.progress.every_n_steps=1",
    "callbacks.samples.every_n_steps=2",
    "callbacks.samples.num_samples=4",
    "callbacks.samples.columns=2",
    "callbacks.trajectory.every_n_steps=2",
    "callbacks.trajectory.num_samples=2",
    "callbacks.trajectory.num_times=2",
    "metrics=[class_accuracy]",
    "evaluation.every_n_steps=2",
    "trainer.val_check_interval=2",
    "trainer.limit_val_batches=2",
)
VALIDATED = ("trainer.val_check_interval=2", "trainer.limit_val_batches=2")

# The bound under importance sampling of four times, which begins when each has been met twice.
LOSS_AWARE = (
    "objective=vlb",
    "schedule.num_steps=4",
    "time_sampler=loss_aware",
    "time_sampler.history=2",
)

# A script that trains, and keeps what each process has seen: images; the times of all, its own, and their losses.
SPY = """
import sys, torch
from pathlib import Path
import langevin.commands.train
from langevin.diffusion.objective import TimedObjective
from langevin.training.module import DiffusionModule
from langevin.training.shares import full_tensor

seen, times, losses = [], [], []
training_step, on_train_end = DiffusionModule.training_step, DiffusionModule.on_train_end
forward = TimedObjective.forward

def step(self, batch, batch_idx):
    seen.append((self.global_step, batch["x"]))
    return training_step(self, batch, batch_idx)

def watched(self, model, batch, draws):
    if not self.training:
        return forward(self, model, batch, draws)
    sampler, terms, sample = self.time_sampler, self.terms, self.time_sampler.sample

    def watched_terms(model, x, noised, cond, t):
        found = terms(model, x, noised, cond, t)
        losses.append((t, found["loss"].detach()))
        return found

    def watched_sample(*asked):
        drawn = sample(*asked)
        times.append(drawn[0])
        return drawn

    self.terms, sampler.sample = watched_terms, watched_sample
    try:
        return forward(self, model, batch, draws)
    finally:
        del self.terms, sampler.sample

def end(self):
    folder = Path(__file__).parent
    weights = {name: full_tensor(value) for name, value in self.state_dict().items()}
    kept = {"seen": seen, "times": times, "losses": losses, "weights": weights}
    kept["time_sampler"] = self.objective.history()
    torch.save(kept, folder / f"rank_{self.global_rank}.pt")
    on_train_end(self)

DiffusionModule.training_step, DiffusionModule.on_train_end = step, end
TimedObjective.forward = watched
langevin.commands.train.main()
"""


class Run(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str
    directory: Path

    @property
    def last(self) -> Path:
        return self.directory / "checkpoints" / "last.ckpt"

    @property
    def rows(self) -> list[dict[str, str]]:
        """The rows of metrics.csv, without the columns that the clock decides."""
        return [
            {name: value for name, value in row.items() if name != "train/images_per_second"}
            for row in read_csv(self.directory / "metrics.csv")
        ]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, strict=True))


def column(rows: list[dict[str, str]], name: str) -> dict[int, float]:
    """A column's numbers by their steps, where there are any."""
    return {int(row["step"]): float(row[name]) for row in rows if row[name]}


def train(folder: Path, *overrides: str, name: str = "run", status: int = 0) -> Run:
    """Train into `folder/name`; later overrides win."""
    arguments = (*TINY, *overrides, f"output_dir={folder}", f"name={name}")
    run = Run(*call("train", *{argument.partition("=")[0]: argument for argument in arguments}.values()), folder / name)
    assert run.status == status, run.err
    return run


def trained(run: Run) -> dict[str, torch.Tensor]:
    """All numbers that training resumes from: the weights, the EMA weights, the optimizer's moments."""
    return numbers(run.last)


def numbers(path: Path) -> dict[str, torch.Tensor]:
    checkpoint = read_checkpoint(path)
    found = dict(checkpoint["state_dict"])
    for optimizer in checkpoint["optimizer_states"]:
        for index, state in optimizer["state"].items():
            found |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
        found["optimizer.lr"] = torch.tensor(optimizer["param_groups"][0]["lr"], dtype=torch.float64)
    found["global_step"] = torch.tensor(checkpoint["global_step"])
    return found


def differing(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[str]:
    """The names under which two dictionaries differ in any bit."""
    return sorted(
        name for name in a.keys() | b.keys() if name not in a or name not in b or not torch.equal(a[name], b[name])
    )


def held(tensors: Iterable[DTensor]) -> int:
    """The bytes that this process keeps of sharded tensors."""
    storages = [tensor.to_local().untyped_storage() for tensor in tensors]  # gradients of a block have one in common
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def start(script: Path, *arguments: str) -> tuple[str, str]:
    """Run a script in a process of its own, which starts the others."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "PL_"))}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = Script(script, *arguments, out=out, err=err, environment=environment)
        try:
            assert process.wait(300) == 0, err.read_text()
        finally:
            process.kill()
        return out.read_text(), err.read_text()


def train_by(processes: int, folder: Path, *overrides: str) -> Run:
    """Train on so many processes (DDP) into ``folder/by_PROCESSES``; the last of each option counts."""
    name = f"by_{processes}"
    given = ("trainer.strategy=ddp", f"trainer.devices={processes}", f"output_dir={folder}", f"name={name}")
    last = {argument.partition("=")[0]: argument for argument in (*overrides, *given)}
    return Run(0, *start(ROOT / "train.py", *last.values()), folder / name)


def train_on_two(folder: Path, *overrides: str, name: str = "run", options: tuple[str, ...] = BUSY) -> Run:
    """Train on two processes into `folder/outputs/name`; what each has kept is in `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / "spy.py").write_text(SPY)
    arguments = (*TINY, *options, "trainer=ddp_cpu", *overrides, f"output_dir={folder / 'outputs'}", f"name={name}")
    last = {argument.partition("=")[0]: argument for argument in arguments}
    return Run(0, *start(folder / "spy.py", *last.values()), folder / "outputs" / name)


@contextmanager
def started(folder: Path, *options: str) -> Iterator[tuple[Script, Path]]:
    """A run in a process of its own, and its log; the process is gone in the end."""
    log = folder / "log"
    arguments = {argument.partition("=")[0]: argument for argument in (*TINY, *options)}
    process = command("train", *arguments.values(), f"output_dir={folder}", "name=run", log=log)
    try:
        yield process, log
    finally:
        process.kill()
        process.wait()
