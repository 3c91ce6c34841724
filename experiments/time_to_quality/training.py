"""Who is trained, in turns in one process, and the weights that are kept on the way."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from experiments.time_to_quality import ours
from experiments.time_to_quality.peers import Diffusers, Lucidrains, Peer, lucidrains_code
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from langevin.assembly.run import make_data, make_module
from langevin.config.types import plain
from langevin.data.module import DataModule
from langevin.interop.diffusers import unet_2d_config

MARKS = (5, 10, 20, 30, 60, 120, 240, 600)
"""CPU seconds after which a peer's weights are kept."""
LENGTHS = (50, 100, 175, 250, 500, 1000, 2000)
"""Optimizer steps of our runs: the rate's schedule ends with the run, so that each length is a run of its own."""
EPOCHS = 150
"""Of diffusers' schedule of the rate: about ten CPU minutes. The 100 of its default are over after six or seven."""
SLICE = 2.0
"""CPU seconds of a turn."""


def data_of(cfg: DictConfig) -> DataModule:
    """The config's images, opened."""
    data = make_data(cfg)
    data.prepare_data()
    return data


def flops(network: nn.Module, shape: Sequence[int], *others: Any) -> float:
    """Floating-point operations of the forward pass of one image of (C, H, W)."""
    number = 4
    times = torch.arange(number)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(number, *shape), times, *others)
    return counter.get_total_flops() / number


def our_network(cfg: DictConfig, data: DataModule) -> nn.Module:
    """The recipe's, with fresh weights."""
    network: nn.Module = make_module(cfg, data.spec).model.network
    return network


def unet_of_diffusers(cfg: DictConfig, shape: Sequence[int]) -> dict[str, Any]:
    """The arguments of the `UNet2DModel` that is the recipe's network."""
    network = {name: value for name, value in plain(cfg.model).items() if name != "_target_"}
    return unet_2d_config(network, shape[0], shape[0], shape[1])


def unet_of_lucidrains(cfg: DictConfig, shape: Sequence[int], wanted: float) -> dict[str, Any]:
    """The arguments of lucidrains' `Unet` of as many levels whose operations are nearest to those wanted."""
    base = {"dim_mults": list(plain(cfg.model)["channel_multipliers"]), "channels": shape[0]}
    choices = [{"dim": dim, **base} for dim in range(16, 65, 4)]
    unet = lucidrains_code().Unet
    return min(choices, key=lambda choice: abs(flops(unet(**choice), shape) - wanted))


def make_peer(name: str, seed: int, task: Sequence[str] = (), epochs: int = EPOCHS) -> Peer:
    """A peer at its first step; see `train`."""
    cfg = ours.config(task)
    data = data_of(cfg)
    shape = data.spec.shape
    images = torch.tensor(data.train_set.samples).movedim(-1, 1).float() / 127.5 - 1
    if name == "diffusers":
        return Diffusers(images, seed, unet_of_diffusers(cfg, shape), epochs)
    wanted = flops(our_network(cfg, data), shape, None)
    return Lucidrains(images, seed, unet_of_lucidrains(cfg, shape, wanted))


def keep(path: Path, weights: Mapping[str, Tensor], cpu: float, steps: int, batch_size: int) -> None:
    """Write weights and what they cost; a run that is cut off leaves no half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save({"weights": dict(weights), "cpu": cpu, "steps": steps, "images": steps * batch_size}, part)
    part.rename(path)


class Course:
    """A peer's way from mark to mark, each of which is kept in its folder; it resumes from the last.

    Args:
        peer: at its first step.
        folder: of its weights.
        marks: CPU seconds.
    """

    def __init__(self, peer: Peer, folder: Path, marks: Sequence[float]) -> None:
        self.peer = peer
        self.folder = folder
        self.marks = marks
        if (folder / "resume").exists():
            peer.load(folder / "resume")

    def advance(self, until: float) -> None:
        """Train until so many CPU seconds, at most the last mark."""
        for mark in self.marks:
            path = self.folder / f"{mark:g}.pt"
            if mark <= until and not path.exists():
                self.peer.advance(mark)
                keep(path, self.peer.ema_weights(), self.peer.cpu, self.peer.steps, self.peer.BATCH)
                self.peer.save(self.folder / "resume")
        self.peer.advance(min(until, self.marks[-1]))


def train(
    out: Path,
    seed: int,
    peers: Sequence[str],
    marks: Sequence[float] = MARKS,
    lengths: Sequence[int] = LENGTHS,
    task: Sequence[str] = (),
    epochs: int = EPOCHS,
    say: Callable[[str], object] = print,
) -> None:
    """Train all of one seed, in turns; what is there already is not trained again.

    Args:
        out: folder of the weights.
        seed: of all.
        peers: their names.
        marks: CPU seconds after which the peers' weights are kept.
        lengths: optimizer steps of our runs.
        task: options of train.py that choose other data, and the network for all.
        epochs: that diffusers' schedule of the rate spans.
        say: is told of what is done.
    """
    folder = out / f"seed_{seed}"
    courses = {name: Course(make_peer(name, seed, task, epochs), folder / name, marks) for name in peers}
    used = 0.0
    for steps in lengths:
        path = folder / "langevin" / f"{steps}.pt"
        if not path.exists():
            began = used

            def turn(cpu: float, began: float = began) -> None:
                for course in courses.values():
                    course.advance(began + cpu)

            choices = [*task, f"seed={seed}", f"trainer.max_steps={steps}"]
            weights, cpu = ours.train(choices, turn, every=25)
            keep(path, weights, cpu, steps, ours.config(task).batch_size)
            say(f"seed {seed}: langevin, {steps} steps, {cpu:.1f} s")
        used += torch.load(path, weights_only=True)["cpu"]
    reached = min((course.peer.cpu for course in courses.values()), default=marks[-1])
    while reached < marks[-1]:
        reached += SLICE
        for course in courses.values():
            course.advance(reached)
    for name, course in courses.items():
        say(f"seed {seed}: {name}, {course.peer.steps} steps, {course.peer.cpu:.1f} s")
