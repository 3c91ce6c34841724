"""How fast is it? The benchmark of experiments/speed at a GPU's sizes, and where a step's time goes."""

import json
from pathlib import Path
from typing import Any

from experiments.gpu.day import Day

TINY = (
    "model.channels=128",
    "model.channel_multipliers=[1]",
    "model.blocks_per_level=1",
    "model.attention_resolutions=[]",
    "data.image_size=8",
)
"""The network of a rehearsal."""
Measurement = tuple[str, ...]


def measurements(rehearsal: bool) -> dict[str, Measurement]:
    """The benchmark's calls by name, the most telling first."""
    if rehearsal:
        size = ("--device=cpu", "--batch-size=4", "--images=20", "--sampling-steps=2", "--warm-up=1", "--rounds=1")
        return {"unet": ("--only=training,sampling,overheads", *size, *TINY)}
    half = ("--precision=bf16-mixed", "--warm-up=1", "--rounds=3")
    unet = ("--batch-size=128", "--steps=5", *half)
    return {
        "unet": ("--only=training,sampling,overheads", *unet),
        "adm_64": ("--only=training", "--batch-size=32", "--steps=4", *half, "model=adm_64", "data.image_size=64"),
        # Minutes of compilation, into a cache that the following calls find.
        "unet, compile=true": ("--only=training,sampling", *unet, "compile=true"),
        "memory and start-up": ("--only=memory,startup", "--batch-size=128", *half[:1], "--rounds=1"),
    }


def run(day: Day, limit: float) -> None:
    """Measure for at most so many seconds, one thing after the other; each has a process of its own."""
    until = day.left - limit
    found = day.results["speed"] = {}
    found["kernels"] = _measured(day, ["-m", "experiments.gpu.kernels", day.device], day.work / "kernels", until)
    for name, options in measurements(day.rehearsal).items():
        folder = day.work / "speed" / name.replace(", ", "-").replace(" ", "-")
        found[name] = _measured(day, ["-m", "experiments.speed.benchmark", *options], folder, until)


def _measured(day: Day, command: list[str], folder: Path, until: float) -> dict[str, Any]:
    """Run a command that writes results.json into its folder; its record, and what it found."""
    folder.mkdir(parents=True, exist_ok=True)
    record = day.run([*command, f"--out={folder}"], day.left - until)
    results = folder / "results.json"
    if record["status"] == 0:
        record["results"] = json.loads(results.read_text())
    day.write()
    return record
