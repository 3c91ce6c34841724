"""Loss curves of every formulation, to show that a change of the code changes no number.

To the bit, on one machine: record before the change, and compare after it. Each commit records by its own table of
options, so that they may be renamed in between; exit status 1 and a line for each curve that differs:

    PYTHONPATH=tests python -m goldens.curves --out /tmp/before.json
    PYTHONPATH=tests python -m goldens.curves --against /tmp/before.json

A commit without this file, whose options are the same, is recorded from here with `--checkout ITS_FOLDER`. The
committed curves, which the tests compare within a tolerance since CPUs round differently, are recorded by

    PYTHONPATH=tests python -m goldens.curves --out tests/goldens/curves.json

where `--only NAME` adds or replaces a single one: of a new formulation, or one that was meant to change.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
CURVES = Path(__file__).parent / "curves.json"
COLUMNS = ("train/loss", "train/grad_norm", "val/loss")

COMMON = (
    "data=digits",
    "batch_size=8",
    "optimizer.lr=1e-3",
    "lr_schedule.steps=4",
    "trainer.max_steps=12",
    "trainer.log_every_n_steps=1",
    "trainer.val_check_interval=4",
    "trainer.limit_val_batches=3",
    "callbacks=[checkpoint]",
)
EMA = "ema.max_decay=0.9"
CPU = "trainer.accelerator=cpu"
UNET = ("model=unet_small", "model.channels=32", "model.channel_multipliers=[1]")
LABELS = ("conditions=[class_label]", "conditions.class_label.dropout=0.3", "model.dropout=0.1")

FORMULATIONS = {
    path.stem: (*COMMON, *UNET, EMA, CPU, f"formulation={path.stem}")
    for path in sorted((ROOT / "conf" / "formulation").glob("*.yaml"))
}
# What takes other paths through the code than a formulation does by itself.
OTHERS = {
    "classifier": (
        *COMMON,
        EMA,
        CPU,
        "task=classifier",
        "classifier.channels=32",
        "classifier.channel_multipliers=[1]",
    ),
    "labels": (*COMMON, *UNET, EMA, CPU, *LABELS),
    "hybrid": (*COMMON, *UNET, EMA, CPU, *LABELS, "formulation=iddpm", "time_sampler=stratified"),
    # Importance sampling of four times begins when each has been met twice.
    "loss_aware": (
        *COMMON,
        *UNET,
        EMA,
        CPU,
        "formulation=iddpm",
        "objective=vlb",
        "schedule.num_steps=4",
        "time_sampler=loss_aware",
        "time_sampler.history=2",
        "sampler.steps=2",
    ),
    "rescaled": (
        *COMMON,
        *UNET,
        EMA,
        CPU,
        "rescalings=[zero_terminal_snr,resolution_shift,input_scaling]",
        "parameterization=v",
        "weighting=min_snr",
    ),
    "huber": (*COMMON, *UNET, EMA, CPU, "objective=huber", "parameterization=x", "weighting=unit_x"),
    "dit": (
        *COMMON,
        *("model=dit_s", "model.width=16", "model.depth=2", "model.heads=2", *LABELS[:2]),
        "formulation=edm",
        "ema=images",
        "ema.half_life=50",
        CPU,
    ),
    "accumulated": (*COMMON, *UNET, EMA, CPU, *LABELS, "data.flip=true", "trainer.accumulate_grad_batches=2"),
    "ddp": (*COMMON, *UNET, EMA, *LABELS[:2], "trainer=ddp_cpu"),
    # Compares with a run of "classifier", which is trained first.
    "alignment": (*COMMON, *UNET, EMA, CPU, "auxiliaries=[alignment]", "auxiliaries.alignment.run={classifier}"),
}
CASES = FORMULATIONS | OTHERS

Curve = dict[str, dict[str, float]]
"""The values of each column by their step, which is text as in JSON."""


def read_curve(path: Path) -> Curve:
    """The curve in a run's metrics.csv, without any rounding."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    return {name: {row["step"]: float(row[name]) for row in rows if row[name]} for name in COLUMNS}


def train(*options: str, checkout: Path = ROOT) -> str:
    """Train in this process by the `langevin` that it imports; with DDP in two others, by `train.py` of a checkout.

    Returns:
        what it printed.

    Raises:
        RuntimeError: with its errors, when it does not train.
    """
    from helpers.commands import call

    if "trainer=ddp_cpu" in options:
        environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, checkout / "train.py", *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        status, output, errors = done.returncode, done.stdout, done.stderr
    else:
        status, output, errors = call("train", *options)
    if status:
        raise RuntimeError(f"{' '.join(options)}: {errors}")
    return output


def record(name: str, checkout: Path = ROOT) -> Curve:
    """The curve of a case, see `train`."""
    with tempfile.TemporaryDirectory() as folder:
        options = [option.replace("{classifier}", f"{folder}/classifier") for option in CASES[name]]
        if options != list(CASES[name]):
            train(*CASES["classifier"], f"output_dir={folder}", "name=classifier", checkout=checkout)
        train(*options, f"output_dir={folder}", "name=run", checkout=checkout)
        return read_curve(Path(folder) / "run" / "metrics.csv")


def differences(now: Curve, before: Curve) -> list[str]:
    """Where two curves differ in any bit: a line for each column that does."""
    lines = []
    for column in COLUMNS:
        a, b = now[column], before[column]
        steps = sorted((step for step in a.keys() | b.keys() if a.get(step) != b.get(step)), key=int)
        if steps:
            first = steps[0]
            lines.append(f"{column}: {len(steps)} steps, first {first}: {a.get(first)!r}, was {b.get(first)!r}")
    return lines


def main() -> None:
    """Read the command line, record, and compare."""
    parser = argparse.ArgumentParser(description="Records loss curves, and compares them to the bit.")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="whose train.py (this one)")
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="NAME", help=f"a few of {', '.join(CASES)}")
    parser.add_argument("--out", type=Path, help="the file to write; other curves in it stay with --only")
    parser.add_argument("--against", type=Path, help="a file to compare with")
    arguments = parser.parse_args()
    if arguments.out is None and arguments.against is None:
        parser.error("give --out, --against, or both")
    checkout = arguments.checkout.resolve()
    sys.path.insert(0, str(checkout / "src"))
    os.environ["OMP_NUM_THREADS"] = "1"
    before = None if arguments.against is None else json.loads(arguments.against.read_text())
    curves, equal = {}, True
    for name in arguments.only or CASES:
        curves[name] = record(name, checkout)
        lines = [] if before is None else ["no curve to compare with"]
        if before is not None and name in before:
            lines = differences(curves[name], before[name])
        equal = equal and not lines
        print(f"{name}: {'recorded' if before is None else 'equal'}" if not lines else f"{name}: differs", flush=True)
        for line in lines:
            print(f"  {line}", flush=True)
    if arguments.out is not None:
        kept = json.loads(arguments.out.read_text()) if arguments.only and arguments.out.exists() else {}
        arguments.out.write_text(json.dumps(kept | curves, indent=1) + "\n")
    sys.exit(not equal)


if __name__ == "__main__":
    main()
