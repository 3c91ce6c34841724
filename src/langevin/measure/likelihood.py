"""Measures a trained model by the likelihood of images under it."""

import math
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

import langevin
from langevin.assembly.check import check_model
from langevin.assembly.components import is_conditional
from langevin.assembly.make import make
from langevin.assembly.run import facts_of, launch, make_likelihoods
from langevin.assembly.saved import Model, load_model, override, require_trusted
from langevin.checkpoint import find_checkpoint, folder_of
from langevin.config.types import plain
from langevin.data.cache import CachedImages
from langevin.diffusion.noise import ImageNoise
from langevin.errors import UserError
from langevin.files import write_json
from langevin.images import from_uint8
from langevin.interrupt import stop_on_signal
from langevin.samplers.generate import share


def measure_likelihoods(cfg: DictConfig) -> None:
    """Compute the likelihoods of images under a model, print them, and write likelihood.json."""
    path = find_checkpoint(Path(cfg.checkpoint))
    model = load_model(path, cfg.trust)
    require_trusted(path, model.cfg, cfg, ("data", "loader"))
    chosen = override(model.cfg, cfg, ("data", "loader"))
    chosen.likelihoods = cfg.likelihoods
    check_model(chosen, ("data", "loader", "likelihoods"))
    images = open_images(chosen, model, cfg.split)
    number = len(images) if cfg.num_images is None else cfg.num_images
    if number > len(images):
        raise UserError(f"num_images is {number}; allowed: at most {len(images)}, all of split={cfg.split}, or null")
    likelihoods = make_likelihoods(chosen, model.facts.image_size)

    fabric = launch(cfg.accelerator, cfg.devices)
    device, denoiser = fabric.device, model.denoiser.to(fabric.device)
    for likelihood in likelihoods.values():
        likelihood.to(device)
    mine = share(number, cfg.batch_size, fabric.global_rank, fabric.world_size)
    total = len(mine) * len(likelihoods)
    with tqdm(total=total, desc="likelihood", unit="image", disable=fabric.global_rank > 0) as bar:
        rounds = -(-number // (cfg.batch_size * fabric.world_size))
        for start in stop_on_signal(range(0, len(mine), cfg.batch_size), rounds):
            index = mine[start : start + cfg.batch_size]
            x = from_uint8(torch.from_numpy(images.images[index]).permute(0, 3, 1, 2).to(device))
            labels = torch.from_numpy(images.labels[index]).to(device)
            cond = {"label": labels} if is_conditional(model.cfg) else None
            for likelihood in likelihoods.values():
                likelihood.update(denoiser, x, cond, ImageNoise(cfg.seed, index, x.shape[1:], device))
                bar.update(len(index))
    values = {name: likelihood.compute() for name, likelihood in likelihoods.items()}
    if fabric.global_rank == 0:
        report = {
            "likelihoods": {name: numbers(value) for name, value in values.items()},
            "settings": plain(cfg.likelihoods),
            "pictures": {
                "data": plain(chosen.data),
                "split": cfg.split,
                "number": number,
                "sha256": images.digest,
            },
            "seed": cfg.seed,
            "checkpoint": str(path),
            "trained_on": model.facts.content,
            "step": model.step,
            "version": langevin.__version__,
        }
        out = Path(cfg.out) if cfg.out else folder_of(path)
        write_json(out / "likelihood.json", report)
        width = max(map(len, values))
        for name, value in values.items():
            parts = ", ".join(f"{part} {float(value[part]):.4f}" for part in likelihoods[name].parts)
            print(f"{name:{width}}  {float(value['bits_per_dim']):.4f} bits/dim: {parts}")
        print(f"{out / 'likelihood.json'}: {number} images of split={cfg.split} at step {model.step}")
    fabric.barrier()


def open_images(cfg: DictConfig, model: Model, split: str) -> CachedImages:
    """A split of a config's data, which must have the model's image shape and, where it is conditional, its classes.

    Raises:
        UserError: when there is no such split, or it does not fit the model.
    """
    data = make(cfg, "loader", source=make(cfg, "data"), batch_size=1)
    data.prepare_data()
    images: CachedImages | None = data.train_set if split == "train" else data.test_set
    if images is None:
        raise UserError(
            f"split={split}: the data has no test images; allowed: split=train, or data=NAME with a test split"
        )
    facts = facts_of(data)
    if facts.shape != model.facts.shape:
        raise UserError(
            f"data: images of (channels, height, width) {facts.shape}, but the model was trained on "
            f"{model.facts.shape}; take data of that size"
        )
    if is_conditional(model.cfg) and facts.num_classes != model.facts.num_classes:
        has = "none" if facts.num_classes is None else facts.num_classes
        raise UserError(
            f"data: the model is conditioned on {model.facts.num_classes} classes, but the images have {has}; "
            "take data with the same classes"
        )
    return images


def numbers(values: dict[str, Tensor]) -> dict[str, Any]:
    """Tensors as plain numbers and lists; nan, which JSON does not know, becomes None."""

    def known(number: float) -> float | None:
        return None if math.isnan(number) else number

    return {
        name: [known(number) for number in value.tolist()] if value.ndim else known(float(value))
        for name, value in values.items()
    }
