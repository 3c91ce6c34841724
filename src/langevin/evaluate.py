"""`python evaluate.py`: measures pictures (`samples=PLACE`), or a model on pictures (`checkpoint=RUN`)."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from langevin.cli import command
from langevin.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from langevin.build.saved import Model
    from langevin.data.cache import CachedImages

OPTIONS = {
    "samples": "str | None",
    "reference": "str | None",
    "checkpoint": "str | None",
    "split": "Literal['train', 'test']",
    "num_images": "Annotated[int, Ge(1)] | None",
    "seed": "Annotated[int, Ge(0)]",
    "out": "str | None",
    "batch_size": "Annotated[int, Ge(1)]",
    "accelerator": "str",
    "devices": "int | str",
    "output_dir": "str",
}
REQUIRED = ("loader", "features")
OPTIONAL = ("data", "metrics", "likelihoods")


def run(cfg: DictConfig) -> None:
    """Measure what the config names: pictures by metrics, or a model by likelihoods."""
    from langevin.config.validate import ConfigError, Mistake, structure

    of_model = cfg.checkpoint is not None
    # Of a model's own data single fields may be changed, which by themselves are no component.
    options = OmegaConf.masked_copy(cfg, [str(name) for name in cfg if not (of_model and name == "data")])
    mistakes = structure(options, OPTIONS, REQUIRED, OPTIONAL)
    if (cfg.samples is None) != of_model:
        mistakes.append(Mistake("samples", "give either samples=FILE_OR_DIR or checkpoint=RUN_OR_FILE, and not both"))
    if of_model:
        if cfg.reference is not None:
            mistakes.append(Mistake("reference", "goes with samples=; a checkpoint is measured on data=NAME"))
        unfit, fit, example, given = "metrics", "likelihoods", "discrete_vlb", "checkpoint"
    else:
        if (cfg.reference is None) == (cfg.get("data") is None):
            mistakes.append(Mistake("reference", "give either reference=FILE_OR_DIR or data=NAME, and not both"))
        unfit, fit, example, given = "likelihoods", "metrics", "fid,inception_score", "samples"
    if not cfg.get(fit):
        mistakes.append(Mistake(fit, f"choose at least one, such as {fit}=[{example}]"))
    if cfg.get(unfit):
        mistakes.append(Mistake(unfit, f"does not go with {given}=; leave it out, and choose {fit}=[{example}]"))
    if mistakes:
        raise ConfigError(mistakes)
    if of_model:
        measure_model(cfg)
    else:
        measure_samples(cfg)


def measure_samples(cfg: DictConfig) -> None:
    """Compute the metrics of pictures, print them, and write metrics.json."""
    import torch
    from tqdm import tqdm

    import langevin
    from langevin.build.run import launch, make_evaluation, open_reference
    from langevin.data.read_images import read_images
    from langevin.samplers.generate import share

    evaluation = make_evaluation(cfg)
    images, labels = read_images(cfg.samples, "samples", cfg.loader.cache_dir)
    reference, reference_labels = open_reference(cfg)
    if images.shape[1:] != reference.shape[1:]:
        raise UserError(
            f"samples={cfg.samples}: pictures of (height, width, channels) {images.shape[1:]}, but the reference has "
            f"{reference.shape[1:]}; both must be of one size"
        )
    evaluation.prepare(len(images), reference, reference_labels, conditional=labels is not None)

    fabric = launch(cfg.accelerator, cfg.devices)
    evaluation.to(fabric.device)
    evaluation.add_reference(cfg.batch_size)
    mine = share(len(images), cfg.batch_size, fabric.global_rank, fabric.world_size)
    for start in tqdm(range(0, len(mine), cfg.batch_size), "samples", disable=fabric.global_rank > 0):
        index = mine[start : start + cfg.batch_size]
        batch = torch.from_numpy(images[index]).permute(0, 3, 1, 2)
        evaluation.add(batch, None if labels is None else torch.from_numpy(labels[index]), torch.tensor(index))
    values = evaluation.compute()
    if fabric.global_rank == 0:
        report = {
            "metrics": values,
            "samples": {"path": cfg.samples, "number": len(images)},
            "reference": {"path": cfg.reference or cfg.data.get("path") or cfg.data._target_, "number": len(reference)},
            "version": langevin.__version__,
        }
        place = Path(cfg.samples)
        out = Path(cfg.out) if cfg.out else place if place.is_dir() else place.parent
        write(out / "metrics.json", report)
        width = max(map(len, values))
        print("\n".join(f"{name:{width}}  {value:.6g}" for name, value in values.items()))
        print(f"{out / 'metrics.json'}: {len(images)} samples against {len(reference)} pictures")
    fabric.barrier()


def measure_model(cfg: DictConfig) -> None:
    """Compute the likelihoods of pictures under a model, print them, and write likelihood.json."""
    from langevin.build.check import check_model
    from langevin.build.run import launch, make_likelihoods
    from langevin.build.saved import load_model, override
    from langevin.checkpoint import find_checkpoint, folder_of
    from langevin.config.types import plain

    path = find_checkpoint(Path(cfg.checkpoint))
    model = load_model(path)
    chosen = override(model.cfg, cfg, ("data", "loader"))
    chosen.likelihoods = cfg.likelihoods
    check_model(chosen, ("data", "loader", "likelihoods"))
    pictures = open_pictures(chosen, model, cfg.split)
    number = len(pictures) if cfg.num_images is None else cfg.num_images
    if number > len(pictures):
        raise UserError(f"num_images is {number}; allowed: at most {len(pictures)}, all of split={cfg.split}, or null")
    likelihoods = make_likelihoods(chosen, model.facts.image_size)

    import torch
    from tqdm import tqdm

    import langevin
    from langevin.build.components import is_conditional
    from langevin.diffusion.noise import ImageNoise
    from langevin.images import from_uint8
    from langevin.samplers.generate import share

    fabric = launch(cfg.accelerator, cfg.devices)
    device, denoiser = fabric.device, model.denoiser.to(fabric.device)
    for likelihood in likelihoods.values():
        likelihood.to(device)
    mine = share(number, cfg.batch_size, fabric.global_rank, fabric.world_size)
    total = len(mine) * len(likelihoods)
    with tqdm(total=total, desc="likelihood", unit="image", disable=fabric.global_rank > 0) as bar:
        for start in range(0, len(mine), cfg.batch_size):
            index = mine[start : start + cfg.batch_size]
            x = from_uint8(torch.from_numpy(pictures.images[index]).permute(0, 3, 1, 2).to(device))
            labels = torch.from_numpy(pictures.labels[index]).to(device)
            cond = {"label": labels} if is_conditional(model.cfg) else None
            for likelihood in likelihoods.values():
                likelihood.update(denoiser, x, cond, ImageNoise(cfg.seed, index, x.shape[1:], device))
                bar.update(len(index))
    values = {name: likelihood.compute() for name, likelihood in likelihoods.items()}
    if fabric.global_rank == 0:
        report = {
            "likelihoods": {name: numbers(value) for name, value in values.items()},
            "settings": plain(cfg.likelihoods),
            "pictures": {"data": plain(chosen.data), "split": cfg.split, "number": number},
            "seed": cfg.seed,
            "checkpoint": str(path),
            "step": model.step,
            "version": langevin.__version__,
        }
        out = Path(cfg.out) if cfg.out else folder_of(path)
        write(out / "likelihood.json", report)
        width = max(map(len, values))
        for name, value in values.items():
            parts = ", ".join(f"{part} {float(value[part]):.4f}" for part in likelihoods[name].parts)
            print(f"{name:{width}}  {float(value['bits_per_dim']):.4f} bits/dim: {parts}")
        print(f"{out / 'likelihood.json'}: {number} pictures of split={cfg.split} at step {model.step}")
    fabric.barrier()


def open_pictures(cfg: DictConfig, model: "Model", split: str) -> "CachedImages":
    """A split of a config's data, which must be of the kind that the model was trained on.

    Raises:
        UserError: when there is no such split, or it does not suit the model.
    """
    from langevin.build.components import is_conditional
    from langevin.build.make import make
    from langevin.build.run import facts_of

    data = make(cfg, "loader", source=make(cfg, "data"), batch_size=1)
    data.prepare_data()
    pictures: CachedImages | None = data.train_set if split == "train" else data.test_set
    if pictures is None:
        raise UserError(
            f"split={split}: the data has no test pictures; allowed: split=train, or data=NAME with a test split"
        )
    facts = facts_of(data)
    if facts.shape != model.facts.shape:
        raise UserError(
            f"data: pictures of (channels, height, width) {facts.shape}, but the model was trained on "
            f"{model.facts.shape}; take data of that size"
        )
    if is_conditional(model.cfg) and facts.num_classes != model.facts.num_classes:
        has = "none" if facts.num_classes is None else facts.num_classes
        raise UserError(
            f"data: the model is told one of {model.facts.num_classes} classes, but the pictures have {has}; "
            "take data with the same classes"
        )
    return pictures


def numbers(values: "dict[str, Tensor]") -> dict[str, Any]:
    """Tensors as plain numbers and lists; nan, which JSON does not know, becomes None."""

    def known(number: float) -> float | None:
        return None if math.isnan(number) else number

    return {
        name: [known(number) for number in value.tolist()] if value.ndim else known(float(value))
        for name, value in values.items()
    }


def write(path: Path, report: dict[str, Any]) -> None:
    """Write a report as JSON."""
    from langevin.images import write_atomically

    write_atomically(path, lambda file: file.write(json.dumps(report, indent=2).encode() + b"\n"))


main = command("evaluate", run)

if __name__ == "__main__":
    main()
