"""Folders as runs leave them, without the training."""

import csv
import functools
import json

import torch
from helpers.commands import composed
from omegaconf import OmegaConf

from langevin.config.identity import digest
from langevin.evaluation.protocol import protocol
from langevin.images import write_png

SPEED = 640.0


@functools.cache
def config(*overrides):
    """A composed config, which takes a while."""
    return composed("train", "experiment=digits_ddpm", "trainer.max_steps=100", *overrides)[0]


def make_run(folder, name, *overrides, change=None, rows=(), images=None, step=None):
    """A run of a real config.

    Args:
        folder: where it lies.
        name: its own name.
        *overrides: of its config.
        change: values in it, by their paths.
        rows: of `metrics.csv`, by columns.
        images: uint8 (H, W, 3) by (kind, step).
        step: of its checkpoint; None for none.
    """
    run = folder / name
    (run / "checkpoints").mkdir(parents=True)
    cfg = config(*overrides).copy()
    for path, value in (change or {}).items():
        OmegaConf.update(cfg, path, value)
    OmegaConf.save(cfg, run / "config.yaml", resolve=True)
    if rows:
        with (run / "metrics.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
            writer.writeheader()
            writer.writerows(rows)
    for (kind, at), image in (images or {}).items():
        write_png(run / "samples" / f"{kind}_{at:08d}.png", image)
    if step is not None:
        torch.save({"global_step": step}, run / "checkpoints" / "last.ckpt")
    return run


def make_protocol(name="fid@50", steps=20, sampler="ddim.DDIM", reference="0123"):
    """How a value came about, as an evaluation tells it."""
    samples = {"sampler": {"_target_": f"langevin.samplers.{sampler}", "steps": steps}, "evaluations": steps, "seed": 0}
    measured = {"num_samples": 50, "features": None, "reference": {"sha256": reference, "number": 1500}}
    return protocol(measured, samples, {"fid": {"scale": 1}}, {"fid": {name: 0.0}})


def protocol_in_training(run, record):
    """Keep a protocol as training does; its name for `metrics.csv`."""
    name = digest(record)
    (run / "evaluations").mkdir(exist_ok=True)
    (run / "evaluations" / f"protocol-{name}.json").write_text(json.dumps(record))
    return name


def evaluated(place, value, record, step=100, name="fid@50"):
    """Write metrics.json as evaluate.py does."""
    place.mkdir(parents=True)
    content = {"metrics": {name: value}, "model": {"step": step}, "protocol": record, "version": "0"}
    (place / "metrics.json").write_text(json.dumps(content))
    return place / "metrics.json"


def logged(sweep, run, column):
    with (sweep / f"run{run}" / "metrics.csv").open(newline="") as file:
        return [(int(row["step"]), float(row[column])) for row in csv.DictReader(file) if row[column]]


def drawn(page, section, title):
    """What Plotly draws in the chart of this title: x, y and the run of each trace."""
    return page.evaluate(
        """([section, title]) => {
          const figure = [...document.querySelectorAll(`${section} figure`)].find(
            (each) => each.querySelector("figcaption").firstChild.textContent === title);
          return figure.querySelector(".plot").data.map(({ x, y, meta, mode }) => ({ x, y, run: meta.run, mode }));
        }""",
        [section, title],
    )


def settle(page):
    """Wait until what was asked for is drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
