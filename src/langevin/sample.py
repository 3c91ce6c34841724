"""`python sample.py checkpoint=RUN_OR_FILE`: makes pictures with a trained model."""

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from langevin.cli import command
from langevin.errors import UserError

if TYPE_CHECKING:
    import numpy as np

OPTIONS = {
    "checkpoint": "str",
    "num_samples": "Annotated[int, Ge(1)]",
    "seed": "Annotated[int, Ge(0)]",
    "labels": "int | list[int] | None",
    "batch_size": "Annotated[int, Ge(1)]",
    "out": "str | None",
    "png": "bool",
    "overwrite": "bool",
    "accelerator": "str",
    "devices": "int | str",
    "output_dir": "str",
}
COLUMNS = 10


def run(cfg: DictConfig) -> None:
    """Sample what the config says; the model is rebuilt from the config stored with its weights."""
    from langevin.build.components import SAMPLING, check_model, override
    from langevin.config.validate import ConfigError, structure

    options = OmegaConf.masked_copy(cfg, [str(name) for name in cfg if name not in SAMPLING])
    mistakes = structure(options, OPTIONS, optional=SAMPLING)
    if mistakes:
        raise ConfigError(mistakes)

    from langevin.build.run import launch, load_model
    from langevin.training.checkpoint import find_checkpoint

    path = find_checkpoint(Path(cfg.checkpoint))
    run_dir = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    out = Path(cfg.out) if cfg.out else run_dir / "generated"
    if (out / "samples.npz").exists() and not cfg.overwrite:
        raise UserError(f"out={out}: holds a samples.npz already; choose another out=, or overwrite=true")
    model = load_model(path)
    chosen = override(model.cfg, cfg, SAMPLING)
    check_model(chosen, SAMPLING)
    labels = [cfg.labels] if isinstance(cfg.labels, int) else None if cfg.labels is None else list(cfg.labels)
    generator = model.generator(chosen, labels)

    import numpy as np
    from tqdm import tqdm

    from langevin.images import write_atomically
    from langevin.samplers.generate import share

    fabric = launch(cfg.accelerator, cfg.devices)
    denoiser = model.denoiser.to(fabric.device)
    shares = [share(cfg.num_samples, cfg.batch_size, rank, fabric.world_size) for rank in range(fabric.world_size)]
    mine = shares[fabric.global_rank]
    parts = []
    with tqdm(total=len(mine), desc="sample", unit="image", disable=fabric.global_rank > 0) as bar:
        for batch in generator(denoiser, mine, cfg.seed, cfg.batch_size, fabric.device):
            parts.append(batch.images.permute(0, 2, 3, 1).cpu().numpy())
            bar.update(len(batch.indices))
    own = np.concatenate(parts) if parts else np.empty((0, *model.facts.shape[1:], model.facts.channels), np.uint8)
    files = [out / f".part_{rank}.npy" for rank in range(fabric.world_size)]
    write_atomically(files[fabric.global_rank], lambda file: np.save(file, own))
    fabric.barrier()
    if fabric.global_rank == 0:
        images = np.empty((cfg.num_samples, *own.shape[1:]), np.uint8)
        for indices, part in zip(shares, files, strict=True):
            images[indices] = np.load(part)
            part.unlink()
        asked = generator.labels
        write(out, images, None if asked is None else np.resize(np.array(asked, np.int64), len(images)), cfg.png)
        print(f"{out / 'samples.npz'}: {len(images)} pictures of step {model.step}; look at {out / 'grid.png'}")
    fabric.barrier()


def write(out: Path, images: "np.ndarray", labels: "np.ndarray | None", png: bool) -> None:
    """Write samples.npz (ADM's layout), grid.png and, where asked for, one PNG a picture.

    Args:
        out: the folder.
        images: uint8 (N, H, W, C).
        labels: int64 (N,), or None.
        png: whether to write each picture.
    """
    import numpy as np
    import torch

    from langevin.images import picture_grid, write_atomically, write_png

    if png:
        for index, image in enumerate(images):
            write_png(out / "png" / f"{index:06d}.png", image.repeat(3 // image.shape[-1], axis=-1))
    first = torch.from_numpy(images[: COLUMNS**2]).permute(0, 3, 1, 2)
    write_png(out / "grid.png", picture_grid(first, COLUMNS), scale=max(1, 64 // images.shape[1]))
    arrays = {"arr_0": images} | ({} if labels is None else {"arr_1": labels})
    write_atomically(out / "samples.npz", lambda file: np.savez(file, allow_pickle=False, **arrays))


main = command("sample", run)

if __name__ == "__main__":
    main()
