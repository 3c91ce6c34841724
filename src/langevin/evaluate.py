"""`python evaluate.py samples=FILE_OR_DIR reference=FILE_OR_DIR`: measures pictures."""

import json
from pathlib import Path

from omegaconf import DictConfig

from langevin.cli import command
from langevin.errors import UserError

OPTIONS = {
    "samples": "str",
    "reference": "str | None",
    "out": "str | None",
    "batch_size": "Annotated[int, Ge(1)]",
    "accelerator": "str",
    "devices": "int | str",
    "output_dir": "str",
}
REQUIRED = ("loader", "features")
OPTIONAL = ("data", "metrics")


def run(cfg: DictConfig) -> None:
    """Compute the metrics, print them, and write metrics.json."""
    from langevin.config.validate import ConfigError, Mistake, structure

    mistakes = structure(cfg, OPTIONS, REQUIRED, OPTIONAL)
    if (cfg.reference is None) == (cfg.get("data") is None):
        mistakes.append(Mistake("reference", "give either reference=FILE_OR_DIR or data=NAME, and not both"))
    if not cfg.get("metrics"):
        mistakes.append(Mistake("metrics", "choose at least one, such as metrics=[fid,inception_score]"))
    if mistakes:
        raise ConfigError(mistakes)

    import torch
    from tqdm import tqdm

    import langevin
    from langevin.build.run import launch, make_evaluation, open_reference
    from langevin.data.read_images import read_images
    from langevin.images import write_atomically
    from langevin.samplers.generate import share

    evaluation = make_evaluation(cfg)
    place = Path(cfg.samples)
    file = place / "samples.npz" if (place / "samples.npz").is_file() else place
    images, labels = read_images(str(file), "samples", cfg.loader.cache_dir)
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
            "samples": {"path": str(file), "number": len(images)},
            "reference": {"path": cfg.reference or cfg.data.get("path") or cfg.data._target_, "number": len(reference)},
            "version": langevin.__version__,
        }
        out = Path(cfg.out) if cfg.out else place if place.is_dir() else place.parent
        write_atomically(out / "metrics.json", lambda file: file.write(json.dumps(report, indent=2).encode() + b"\n"))
        width = max(map(len, values))
        print("\n".join(f"{name:{width}}  {value:.6g}" for name, value in values.items()))
        print(f"{out / 'metrics.json'}: {len(images)} samples against {len(reference)} pictures")
    fabric.barrier()


main = command("evaluate", run)

if __name__ == "__main__":
    main()
