"""Records runs as another commit makes them, so that later commits can show that they still read them.

    git worktree add ../old COMMIT
    PYTHONPATH=tests python -m goldens.record ../old tests/goldens/runs

Every run is made by the commands of that checkout, as a user would type them, on data=digits and the CPU. NAME.tar.xz
holds its folder as `runs/NAME`, and in `values/NAME` what that commit computed from it:

- `outputs.npy`: the network with the EMA weights on the inputs of `outputs_of`;
- `resumed.csv`: metrics.csv after `RESUMED` resumed the run (a run that is trained).

A run folder keeps its samples (`generated/`) and its metrics (`evaluations/`).
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch

# Large steps and a short EMA: six steps change what the network puts out.
COMMON = (
    "data=digits",
    "batch_size=8",
    "optimizer.lr=1e-2",
    "lr_schedule.steps=0",
    "ema.max_decay=0.5",
    "trainer.log_every_n_steps=1",
    "trainer.val_check_interval=2",
    "trainer.limit_val_batches=2",
)
DIT = ("model=dit_s", "model.width=8", "model.depth=1", "model.heads=2")
SAMPLED = ("sampler.steps=4", "callbacks.samples.num_samples=4")
SIX, TWO = "trainer.max_steps=6", "trainer.max_steps=2"
# A wider network at two steps, when most of its moments are still zero and take no space in the archive.
UNET = ("model=unet_small", "model.channels=32", "model.channel_multipliers=[1]")
HALF_UNET = ("classifier=half_unet", "classifier.channels=32", "classifier.channel_multipliers=[1]")
LABELS = ("conditions=[class_label]", "conditions.class_label.dropout=0.3")

TRAINED = {
    "classifier": (*COMMON, "task=classifier", *HALF_UNET, "trainer.accelerator=cpu", TWO),
    "guided": (*COMMON, *UNET, *LABELS, "guidance=classifier_free", *SAMPLED, "trainer.accelerator=cpu", TWO),
    "ddp": (*COMMON, *DIT, *LABELS, *SAMPLED, "trainer=ddp_cpu", SIX),
}
FORMULATION = (*COMMON, *DIT, *SAMPLED, "trainer.accelerator=cpu", SIX)
IMPORTED = "imported"
SAMPLE = ("num_samples=16", "accelerator=cpu")
EVALUATE = ("metrics=[fid]", "metrics.fid.min_samples=2", "num_samples=16", "accelerator=cpu")
FEATURES = "features=classifier"
RESUMED = "trainer.max_steps=8"
RUNS = Path(__file__).parent / "runs"
DROPPED = (".lock", "grid.png", "last-1.ckpt")  # what a user may delete, and nothing here needs


def options_of(name: str) -> tuple[str, ...]:
    """What a run is trained with."""
    return TRAINED.get(name) or (f"formulation={name}", *FORMULATION)


def outputs_of(run: Path) -> np.ndarray:
    """The output of a run's network, with its EMA weights, on fixed inputs at four noise levels.

    Returns:
        (4, C, 8, 8) float32, or (4, 10) of a classifier.
    """
    try:
        from langevin.assembly.saved import classifier_for_guidance, load_model
    except ImportError:  # as the package was called when the runs were recorded
        from langevin.build.saved import classifier_for_guidance, load_model

    if run.name == "classifier":
        network = classifier_for_guidance("run", str(run))[0].network
    else:
        network = load_model(run / "checkpoints" / "last.ckpt").denoiser.network
    x = torch.sin(1.3 * torch.arange(4 * 8 * 8, dtype=torch.float64)).float().reshape(4, 1, 8, 8)
    condition = () if run.name == "classifier" else ({"label": torch.tensor([0, 3, 9, -1])},)
    with torch.no_grad():
        return network(x, torch.tensor([-2.0, 0.5, 30.0, 700.0]), *condition).numpy()


def save_pipeline(folder: Path) -> None:
    """Save a DDIM pipeline of diffusers; every weight repeats a thousand random numbers, which compress."""
    from helpers.pipelines import ddim_folder, unet

    network = unet()
    numbers = torch.randn(1021, generator=torch.Generator().manual_seed(0))
    for weight in network.parameters():
        if weight.ndim > 1:
            repeated = numbers.repeat(-(-weight.numel() // len(numbers)))[: weight.numel()]
            weight.data = repeated.reshape(weight.shape) / weight[0].numel() ** 0.5
    ddim_folder(folder, network)


def pack(folder: Path, name: str, archives: Path) -> None:
    """Write a run and its values as an archive, which tells nothing of the machine and the user."""

    def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        return None if Path(member.name).name in DROPPED else member

    with tarfile.open(archives / f"{name}.tar.xz", "w:xz", preset=9) as file:
        for place in (f"runs/{name}", f"values/{name}"):
            file.add(folder / place, place, filter=kept)


def unpack(folder: Path) -> Path:
    """Unpack all recorded runs, into `runs`, and their values, into `values`.

    Returns:
        the folder.
    """
    for archive in RUNS.glob("*.tar.xz"):
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
    return folder


def record(checkout: Path, archives: Path, folder: Path) -> None:
    """Make all runs in `folder` by the code of `checkout`, and pack them."""
    sys.path.insert(0, str(checkout / "src"))
    environment = os.environ | {
        "PYTHONPATH": str(checkout / "src"),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "LANGEVIN_CACHE": str(folder / "cache"),
    }

    def call(command: str, *options: str) -> None:
        print(command, *options, flush=True)
        script = checkout / f"{command}.py"
        subprocess.run([sys.executable, script, *options], cwd=folder, env=environment, check=True)

    torch.set_num_threads(1)
    formulations = sorted(path.stem for path in (checkout / "conf" / "formulation").glob("*.yaml"))
    trained = [*TRAINED, *formulations]
    for name in trained:
        call("train", *options_of(name), "output_dir=runs", f"name={name}")
    save_pipeline(folder / "diffusers")
    call("convert", "import=diffusers", f"out=runs/{IMPORTED}", "sampler.steps=4")
    for name in (*trained, IMPORTED):
        values = folder / "values" / name
        values.mkdir(parents=True)
        np.save(values / "outputs.npy", outputs_of(folder / "runs" / name))
        if name != "classifier":
            call("sample", f"checkpoint=runs/{name}", *SAMPLE)
            features = FEATURES, "features.checkpoint=runs/classifier"
            data = ("data=digits",) if name == IMPORTED else ()
            call("evaluate", f"checkpoint=runs/{name}", *EVALUATE, *features, *data)
        if name != IMPORTED:
            shutil.copytree(folder / "runs" / name, folder / "resumed" / name)
            call("train", *options_of(name), RESUMED, "output_dir=resumed", f"name={name}")
            shutil.copy(folder / "resumed" / name / "metrics.csv", values / "resumed.csv")
        pack(folder, name, archives)


def main() -> None:
    """Read the command line and record."""
    parser = argparse.ArgumentParser(description="Records runs as another commit makes them.")
    parser.add_argument("checkout", type=Path, help="a checkout of the commit")
    parser.add_argument("archives", type=Path, help="the folder to write to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arguments.archives.mkdir(parents=True, exist_ok=True)
        record(arguments.checkout.resolve(), arguments.archives, Path(folder))


if __name__ == "__main__":
    main()
