"""Changes of our recipe, each at about the same CPU time: see the README.

Usage: ``python -m experiments.time_to_quality.tried CLASSIFIER [NAME...] [--seeds 0 1 2] [--other CLASSIFIER]``;
results are added to tried.json, what it has already is not trained again, and tried.md is the table of it.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from experiments.time_to_quality.asked import ask

from langevin.cli import calm_threads

BEFORE = ("optimizer=adamw", "optimizer.lr=2e-3", "weighting=unit_x")
"""What `experiment=digits` had before Muon and `unit_v`."""
MUON = ("optimizer=muon", "optimizer.lr=4e-3", "trainer.max_steps=190")
ALIGNED = ("auxiliaries=[alignment]", "auxiliaries.alignment.run={classifier}")
FLOW = ("formulation=flow", "weighting=unit_flow", "sampler=dpm_solver_2m")
MIDDLE = ("time_sampler=logit_normal",)
CHANGES: Mapping[str, Sequence[str]] = {
    "none": ("trainer.max_steps=225",),
    "unit_v": ("weighting=unit_v", "trainer.max_steps=225"),
    "flow": (*FLOW, "trainer.max_steps=225"),
    "Muon": MUON,
    "Muon, lr 2e-3": (*MUON, "optimizer.lr=2e-3"),
    "Muon, lr 8e-3": (*MUON, "optimizer.lr=8e-3"),
    "Muon, unit_v": (*MUON, "weighting=unit_v"),
    "Muon, unit_v, stratified times": (*MUON, "weighting=unit_v", "time_sampler=stratified"),
    "Muon, unit_v, aligned": (*MUON, "weighting=unit_v", *ALIGNED, "trainer.max_steps=170"),
    "Muon, unit_v, aligned, as many steps": (*MUON, "weighting=unit_v", *ALIGNED),
    "Muon, flow": (*MUON, *FLOW),
    "Muon, flow, lr 8e-3": (*MUON, *FLOW, "optimizer.lr=8e-3"),
    "Muon, flow, stratified times": (*MUON, *FLOW, "time_sampler=stratified"),
    "Muon, flow, logit-normal times": (*MUON, *FLOW, *MIDDLE),
    "Muon, flow, also of narrow matrices": (*MUON, *FLOW, "optimizer.min_side=8"),
    "Muon, flow, batch 32": (*MUON, *FLOW, "batch_size=32", "trainer.max_steps=340"),
    "Muon, flow, twice as long": (*MUON, *FLOW, "trainer.max_steps=380"),
    "Muon, flow, four times as long": (*MUON, *FLOW, "trainer.max_steps=760"),
    "Muon, flow, logit-normal times, twice as long": (*MUON, *FLOW, *MIDDLE, "trainer.max_steps=380"),
}
"""Further options of train.py, after those of `BEFORE`; of an option that is given twice the last one counts.

{classifier} stands for the classifier whose features measure.
"""
Rows = dict[str, dict[str, Any]]


def pixels() -> Callable[[Any], Any]:
    """Features that no network has learnt: the 64 grey values of a digit, from 0 to 1; of larger images their means."""
    from torch.nn.functional import adaptive_avg_pool2d

    return lambda images: adaptive_avg_pool2d(images[:, :1].float() / 255, 8).flatten(1)


def once(options: Sequence[str]) -> list[str]:
    """The last of each option."""
    return list({option.partition("=")[0]: option for option in options}.values())


def table(rows: Rows, task: Sequence[str] = ()) -> str:
    """The mean of each change over its seeds and, in brackets, the standard error, as Markdown.

    Args:
        rows: by change and seed.
        task: options of train.py that all have in common.
    """

    def shown(values: Sequence[float], digits: int) -> str:
        error = f" ({stdev(values) / len(values) ** 0.5:.{digits}f})" if len(values) > 1 else ""
        return f"{mean(values):.{digits}f}{error}"

    lines = ["| change | seeds | CPU s | FD | precision | recall |", "| --- | --- | --- | --- | --- | --- |"]
    for name in (name for name in CHANGES if name in rows):
        runs = list(rows[name].values())
        values = " | ".join(
            shown([run[key] for run in runs], digits)
            for key, digits in {"cpu_seconds": 1, "fd": 1, "precision": 2, "recall": 2}.items()
        )
        lines.append(f"| {name}: `{' '.join(once((*CHANGES[name], *task)))}` | {len(runs)} | {values} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and measure changes, by default all."""
    asked = argparse.ArgumentParser("python -m experiments.time_to_quality.tried")
    ask(asked)
    asked.add_argument("names", nargs="*", help=f"of the changes {', '.join(map(repr, CHANGES))} (default: all)")
    asked.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    asked.add_argument("--other", type=Path, help="another run of it: adds FD by it, and of pixels")
    options = asked.parse_intermixed_args(arguments)
    calm_threads()  # before torch is imported

    import torch
    from experiments.time_to_quality import measuring, ours

    torch.set_num_threads(1)
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / "tried.json"
    rows: Rows = json.loads(path.read_text()) if path.exists() else {}
    evaluation = measuring.evaluation_of(options.classifier, options.samples, options.task)
    others = {}
    if options.other is not None:
        of_pixels = ["features=module", "features.target=experiments.time_to_quality.tried:pixels"]
        others = {
            "fd_other": measuring.evaluation_of(options.other, options.samples, options.task),
            "fd_pixels": measuring.evaluation_in(of_pixels, options.samples, options.task),
        }
    for seed in options.seeds:
        for name in options.names or CHANGES:
            overrides = [*once((*BEFORE, *CHANGES[name], *options.task)), f"seed={seed}"]
            if rows.setdefault(name, {}).get(str(seed), {}).get("overrides") == overrides:
                continue
            given = tuple(override.format(classifier=options.classifier) for override in overrides)
            weights, cpu = ours.train(given, lambda seconds: None, every=1000)
            cfg = measuring.config_of("langevin", given)
            denoiser = measuring.denoiser_of("langevin", cfg, weights)
            values = measuring.measured(denoiser, cfg, evaluation, "dpm_solver_2m", 20, options.samples)
            for key, other in others.items():
                values[key] = measuring.measured(denoiser, cfg, other, "dpm_solver_2m", 20, options.samples)["fd"]
            rows[name][str(seed)] = {"overrides": overrides, "cpu_seconds": round(cpu, 2), **values}
            path.write_text(json.dumps(rows, indent=1) + "\n")
            (options.results / "tried.md").write_text(table(rows, options.task))


if __name__ == "__main__":
    main()
