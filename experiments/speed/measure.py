"""The parts of the benchmark: what each measures, as plain values."""

import argparse
import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.speed import ours
from experiments.speed.alone import SAMPLING, TRAINING, made
from experiments.speed.clock import Clock, Times, Turn, ratio, spread, take_turns
from experiments.speed.utilisation import Matmul, flops_of, peak_of_gpu
from experiments.speed.work import Watch, Work
from PIL import Image
from torch import nn

from langevin import __version__
from langevin.assembly.run import make_data
from langevin.config.types import plain
from langevin.errors import UserError
from langevin.interop.diffusers import to_diffusers, unet_2d_config

ROOT = Path(__file__).parents[2]
LOOP_STEPS = 50
"""Steps in a round of the fit of a network that does nothing: as many as from one row of the log to the next."""
Results = dict[str, Any]


def measure(options: argparse.Namespace) -> Results:
    """Measure what is asked for.

    Raises:
        UserError: when something is asked for that this machine has not, or an option of train.py is mistaken.
    """
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device is cuda, but torch finds no NVIDIA GPU on this machine; allowed here: cpu")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    rounds = {"warm_up": options.warm_up, "rounds": options.rounds}
    steps = options.steps or (20 if device == "cuda" else 1)
    with tempfile.TemporaryDirectory(prefix="langevin-speed-") as temporary:
        folder = Path(temporary)
        work = work_of(options, device, folder)
        parts = {
            "training": lambda: training(work, folder, steps, **rounds),
            "sampling": lambda: sampling(work, **rounds),
            "overheads": lambda: overheads(work, folder, steps, **rounds),
            "memory": lambda: memory(work, folder),
            "startup": lambda: startup(work, folder, options.rounds),
        }
        results = {"about": about(options, work, steps)}
        for name in options.only:
            results[name] = parts[name]()
            gc.collect()  # a trainer and its module hold each other
    return results


def work_of(options: argparse.Namespace, device: str, folder: Path) -> Work:
    """The work, the same for all; images are made where the options name no data."""
    overrides = ["model=unet", f"trainer={'gpu' if device == 'cuda' else 'cpu'}", *options.overrides]
    if not any(override.startswith("data=") for override in overrides):
        write_images(folder / "images", options.images)
        own = ["data=image_folder", f"data.path={folder / 'images'}", "data.image_size=32"]
        overrides = [*own, f"loader.cache_dir={folder / 'cache'}", *overrides]
    overrides += [
        f"batch_size={options.batch_size}",
        f"trainer.precision={options.precision}",
        "trainer.val_check_interval=null",
        "callbacks=[progress,checkpoint]",
    ]
    cfg = ours.composed(overrides)
    data = make_data(cfg)
    data.prepare_data()
    np.save(folder / "images.npy", data.train_set.samples.transpose(0, 3, 1, 2))
    channels, size, _ = shape = data.spec.shape
    network = {name: value for name, value in plain(cfg.model).items() if name != "_target_"}
    return Work(
        overrides=overrides,
        network=network,
        unet_2d=unet_2d_config(network, channels, channels, size),
        shape=shape,
        images=str(folder / "images.npy"),
        batch_size=options.batch_size,
        sampling_steps=options.sampling_steps or (50 if device == "cuda" else 5),
        precision=options.precision,
        device=device,
        threads=options.threads,
    )


def write_images(folder: Path, number: int) -> None:
    """Write soft blobs of colour as PNG files of 32 x 32 pixels, the same at every call."""
    folder.mkdir()
    blobs = np.random.default_rng(0).integers(256, size=(number, 4, 4, 3), dtype=np.uint8)
    for index, blob in enumerate(blobs):
        Image.fromarray(blob).resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{index:06d}.png")


def about(options: argparse.Namespace, work: Work, steps: int) -> Results:
    """How it was measured."""
    versions = {"python": sys.version.split()[0], "langevin": __version__}
    for package in ("torch", "lightning", "diffusers"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "none"
    return {
        "device": torch.cuda.get_device_name() if work.device == "cuda" else "cpu",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": versions,
        "options": options.overrides,
        "network": work.network,
        "shape": work.shape,
        "precision": work.precision,
        "batch_size": work.batch_size,
        "steps": steps,
        "sampling_steps": work.sampling_steps,
        "warm_up": options.warm_up,
        "rounds": options.rounds,
    }


def training(work: Work, folder: Path, steps: int, warm_up: int, rounds: int) -> Results:
    """Images a second of every contender."""
    contenders, skipped = made(TRAINING, work)
    difference = give_the_same_weights(work, contenders)
    counts = {name: counted(contender) for name, contender in contenders.items()}
    turns = {name: Turn(contender, steps) for name, contender in contenders.items()} | peak_turn(work)
    trained = ours.train(work, folder / "fit", turns, warm_up, rounds, steps)
    # It is the very same network, in a fit which torch cannot count in.
    flops = counts["network alone"]["flops"]
    own = {"parameters": trained.parameters, "flops": flops, **trained.step}
    return {
        **compared(work, trained.times, {"langevin": own} | counts),
        "over_network_alone": timed(trained.times, "langevin", "share", "network alone"),
        "difference_to_diffusers": difference,
        "checkpoint": trained.checkpoint,
        "skipped": skipped,
    }


def sampling(work: Work, warm_up: int, rounds: int) -> Results:
    """Images a second of DDIM."""
    contenders, skipped = made(SAMPLING, work)
    difference = give_the_same_weights(work, contenders)
    counts = {name: counted(contender) for name, contender in contenders.items()}
    turns = {name: Turn(contender) for name, contender in contenders.items()} | peak_turn(work)
    times = take_turns(turns, warm_up, rounds, Clock(work.device))
    return {**compared(work, times, counts), "difference_to_diffusers": difference, "skipped": skipped}


@torch.no_grad()
def give_the_same_weights(work: Work, contenders: Mapping[str, Any]) -> float | None:
    """Give diffusers' network our weights; returns how much its output then differs, relative to its greatest value."""
    if "diffusers" not in contenders:
        return None
    mine, theirs = (contenders[name].network for name in ("network alone", "diffusers"))
    theirs.load_state_dict(to_diffusers(mine.state_dict(), work.network))
    x, t = torch.randn(2, *work.shape, device=work.device), torch.tensor([7.0, 950.0], device=work.device)
    state = mine.training
    with torch.compiler.set_stance("force_eager"):  # to compile for two images costs a minute
        outputs = [network.eval()(x, t) for network in (mine, theirs)]
    for network in (mine, theirs):
        network.train(state)
    expected = outputs[1].sample
    return float((outputs[0] - expected).abs().max() / expected.abs().max())


def counted(contender: Any) -> Results:
    """What there is to count in one step: parameters, calls of the network, images it is given, and operations."""
    network: nn.Module = contender.network
    watch = Watch(network)
    flops = flops_of(contender)
    return {"parameters": sum(weight.numel() for weight in network.parameters()), "flops": flops, **watch.per(1)}


def peak_turn(work: Work) -> dict[str, Turn]:
    """The turn of a CPU's peak; a GPU's is known."""
    return {"peak": Turn(Matmul(work.precision), 3)} if work.device == "cpu" else {}


def compared(work: Work, times: Times, counts: Mapping[str, Results]) -> Results:
    """The speed of each contender beside langevin's, and its share of the peak of this machine."""
    peaks = peaks_of(work, times)
    rows = {}
    for name, count in counts.items():
        # Others' work on a shared machine is not to be taken for bad use of it.
        seconds = times.cpu[name] if work.device == "cpu" else times.wall[name]
        rows[name] = {
            **count,
            **timed(times, name, "langevin_over_it", "langevin"),
            "images_per_second": spread([work.batch_size / wall for wall in times.wall[name]]),
            "utilisation": ratio([count["flops"] / each for each in seconds], peaks) if peaks else None,
        }
    return {"contenders": rows, "peak_flops": peaks}


def peaks_of(work: Work, times: Times) -> list[float] | None:
    """FLOP/s that the machine is able to do, round by round: of a core of a CPU, of a whole GPU where it is known."""
    if work.device == "cpu":
        return [Matmul.flops / seconds for seconds in times.cpu["peak"]]
    peak = peak_of_gpu(work.precision)
    return None if peak is None else [peak] * len(times.wall["langevin"])


def timed(times: Times, name: str, as_ratio: str, to: str) -> Results:
    """The times of one, and their ratio to another's, by the clock and in CPU time.

    Args:
        times: of all.
        name: the one.
        as_ratio: what the ratio is called: "share", its time in that of the other; or "langevin_over_it", the ratio of
            the speeds, above 1 where the other is the faster.
        to: the other.
    """
    return {
        "seconds": times.wall[name],
        "cpu_seconds": times.cpu[name],
        as_ratio: ratio(times.wall[name], times.wall[to]),
        f"{as_ratio}_cpu": ratio(times.cpu[name], times.cpu[to]),
    }


def overheads(work: Work, folder: Path, steps: int, warm_up: int, rounds: int) -> Results:
    """What surrounds the network, as shares of the network's step."""
    times = ours.overheads(work, folder / "blank", warm_up, rounds, steps, LOOP_STEPS)
    return {name: timed(times, name, "share", "network alone") for name in times.wall}


def memory(work: Work, folder: Path) -> Results:
    """The peak of each contender in bytes, in a process of its own: two steps of training, or one batch of samples."""
    work.write(folder / "work.json")
    names = {"training": ["langevin", *TRAINING], "sampling": list(SAMPLING)}
    steps = {"training": 2, "sampling": 1}
    asked = [(part, name) for part in steps for name in names[part]]
    # What torch takes of a GPU's memory is a process's own, whatever others do; of a CPU's nearly so, but they wait.
    with ThreadPoolExecutor(len(asked) if work.device == "cuda" else 1) as pool:
        all_ended = pool.map(lambda each: process(alone(*each, folder, steps[each[0]])), asked)
    peaks: Results = {part: {} for part in steps}
    for (part, name), ended in zip(asked, all_ended, strict=True):
        if ended.returncode == 0:
            peaks[part][name] = int(ended.stdout.split()[-1])
        elif "ModuleNotFoundError" not in ended.stderr:
            raise UserError(f"{part} of {name} failed:\n{ended.stderr}")
    return peaks


def startup(work: Work, folder: Path, rounds: int) -> Results:
    """Seconds from the command to the end of its first step, and of the process with it; once before to warm up."""
    work.write(folder / "work.json")
    train = [sys.executable, "train.py", *work.overrides, "callbacks=[progress]", "trainer.max_steps=1"]
    train += [f"output_dir={folder / 'runs'}"]
    commands = {
        "langevin": lambda: [*train, f"name=run{len(list((folder / 'runs').glob('*')))}"],
        "diffusers": lambda: alone("training", "diffusers", folder, 1),
        "import torch": lambda: [sys.executable, "-c", "import torch"],
    }
    if find_spec("diffusers") is None:
        del commands["diffusers"]

    def act(name: str) -> None:
        ended = process(commands[name]())
        if ended.returncode:
            raise UserError(f"the first step of {name} failed:\n{ended.stderr}")

    turns = {name: Turn(lambda name=name: act(name)) for name in commands}
    times = take_turns(turns, 1, rounds, Clock(work.device))
    return {name: timed(times, name, "langevin_over_it", "langevin") for name in commands}


def alone(part: str, name: str, folder: Path, steps: int) -> list[str]:
    """The command of a contender alone."""
    return [sys.executable, "-m", "experiments.speed.alone", part, name, str(folder / "work.json"), str(steps)]


def process(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in the repository's root, with as many threads as this process."""
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
