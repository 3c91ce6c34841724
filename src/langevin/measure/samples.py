"""Measures existing images, whatever their origin."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor

from langevin.assembly.run import launch, make_evaluation, open_reference
from langevin.data.read_images import left_out, read_images, read_record
from langevin.errors import UserError
from langevin.interrupt import stop_on_signal
from langevin.measure.report import report
from langevin.measured import FILE
from langevin.samplers.generate import share


class ImageBatch(NamedTuple):
    """A batch of them, see `langevin.metrics.evaluation.Batch`."""

    indices: Tensor
    images: Tensor
    labels: Tensor | None


def measure_samples(cfg: DictConfig) -> None:
    """Compute the metrics of images, print them, and write metrics.json.

    Raises:
        UserError: when the images, the reference and the metrics are incompatible.
    """
    evaluation = make_evaluation(cfg)
    images, labels = read_images(cfg.samples, "samples", cfg.loader.cache_dir)
    reference = open_reference(cfg)
    if reference.images is not None:
        refuse_others(cfg.samples, images.shape[1:], reference.images.shape[1:])
    evaluation.prepare(len(images), reference, labels)

    fabric = launch(cfg.accelerator, cfg.devices)
    evaluation.to(fabric.device).gather()
    mine = share(len(images), cfg.batch_size, fabric.global_rank, fabric.world_size)

    def batches() -> Iterator[ImageBatch]:
        for start in range(0, len(mine), cfg.batch_size):
            index = mine[start : start + cfg.batch_size]
            batch = torch.from_numpy(images[index]).permute(0, 3, 1, 2)
            yield ImageBatch(torch.tensor(index), batch, None if labels is None else torch.from_numpy(labels[index]))

    rounds = -(-len(images) // (cfg.batch_size * fabric.world_size))
    values = evaluation.measure(stop_on_signal(batches(), rounds), len(mine), show=fabric.global_rank == 0)
    if fabric.global_rank == 0:
        if unread := left_out(cfg.samples):
            print(f"samples={cfg.samples}: left out {unread}")
        out = folder_of_values(cfg)
        made = read_record(cfg.samples)
        about = {} if made is None else {"model": made["model"]}
        report(
            out,
            evaluation,
            values,
            evaluation.protocol(None if made is None else made["samples"], values),
            samples={"path": cfg.samples, "number": len(images)},
            reference={"path": place_of_reference(cfg), "number": reference.number},
            **about,
        )
        print(f"{out / FILE}: {len(images)} samples against {reference.number or 'published'} images")
    fabric.barrier()


def folder_of_values(cfg: DictConfig) -> Path:
    """The folder for the values: the config's `out`, else beside the images."""
    place = Path(cfg.samples)
    return Path(cfg.out) if cfg.out else place if place.is_dir() else place.parent


def refuse_others(samples: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Check that the samples have the reference's (height, width, channels).

    Raises:
        UserError: when they are not.
    """
    if shape[:2] != wanted[:2]:
        raise UserError(
            f"samples={samples}: images of (height, width) {shape[:2]}, but the reference's are of {wanted[:2]}; both "
            "must be of one size"
        )
    if shape[2] != wanted[2]:
        colors = {1: "grey", 3: "in colour"}
        raise UserError(
            f"samples={samples}: images {colors[shape[2]]}, but the reference's are {colors[wanted[2]]}; store both "
            "grey, or both in colour (RGB)"
        )


def place_of_reference(cfg: DictConfig) -> str:
    """Where the reference of a config comes from."""
    return str(cfg.reference or cfg.data.get("path") or cfg.data._target_)
