"""`python sample.py checkpoint=RUN_OR_FILE`: makes pictures with a trained model."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from omegaconf import DictConfig, OmegaConf

from langevin.cli import command
from langevin.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor

    from langevin.diffusion.denoiser import Prediction
    from langevin.samplers.trajectory import Trajectory

OPTIONS = {
    "checkpoint": "str",
    "num_samples": "Annotated[int, Ge(1)]",
    "seed": "Annotated[int, Ge(0)]",
    "labels": "int | list[int] | None",
    "batch_size": "Annotated[int, Ge(1)]",
    "out": "str | None",
    "png": "bool",
    "trajectory": "Annotated[int, Ge(2)] | None",
    "invert": "str | None",
    "overwrite": "bool",
    "accelerator": "str",
    "devices": "int | str",
    "output_dir": "str",
}
COLUMNS = 10
# How many pictures a trajectory shows.
SEEN = 8


def run(cfg: DictConfig) -> None:
    """Sample what the config says; the model is rebuilt from the config stored with its weights."""
    from langevin.build.check import check_model
    from langevin.build.components import SAMPLING, is_conditional
    from langevin.build.saved import override
    from langevin.config.validate import ConfigError, structure

    options = OmegaConf.masked_copy(cfg, [str(name) for name in cfg if name not in SAMPLING])
    mistakes = structure(options, OPTIONS, optional=SAMPLING)
    if mistakes:
        raise ConfigError(mistakes)

    from langevin.build.run import launch
    from langevin.build.saved import load_model
    from langevin.checkpoint import find_checkpoint, folder_of

    path = find_checkpoint(Path(cfg.checkpoint))
    out = Path(cfg.out) if cfg.out else folder_of(path) / "generated"
    if (out / "samples.npz").exists() and not cfg.overwrite:
        raise UserError(f"out={out}: holds a samples.npz already; choose another out=, or overwrite=true")
    model = load_model(path)
    chosen = override(model.cfg, cfg, SAMPLING)
    check_model(chosen, SAMPLING, model.facts)
    originals = None if cfg.invert is None else open_originals(cfg, chosen, model.facts.shape)
    number = cfg.num_samples if originals is None else min(cfg.num_samples, len(originals.images))
    labels = [cfg.labels] if isinstance(cfg.labels, int) else None if cfg.labels is None else list(cfg.labels)
    if labels is None and originals is not None and originals.labels is not None and is_conditional(chosen):
        labels = originals.labels.tolist()
    generator = model.generator(chosen, labels)

    import numpy as np
    from tqdm import tqdm

    from langevin.images import write_atomically
    from langevin.samplers.generate import share
    from langevin.samplers.trajectory import Trajectory

    fabric = launch(cfg.accelerator, cfg.devices)
    denoiser = model.denoiser.to(fabric.device)
    shares = [share(number, cfg.batch_size, rank, fabric.world_size) for rank in range(fabric.world_size)]
    mine = shares[fabric.global_rank]
    steps = generator.sampler.grid(denoiser.schedule, generator.sampler.steps)[:-1]
    seen = Trajectory(denoiser.schedule, SEEN) if cfg.trajectory and fabric.global_rank == 0 else None
    parts: list[np.ndarray] = []
    noise: list[np.ndarray] = []
    with tqdm(total=len(mine), desc="sample", unit="image", disable=fabric.global_rank > 0) as bar:

        def look(x_t: "Tensor", t: "Tensor", prediction: "Prediction") -> None:
            # Of the batch under way, as many pictures count as done as of its times have been gone through.
            under_way = len(x_t) * int((steps > t).sum()) // len(steps)
            bar.update(sum(len(part) for part in parts) + under_way - bar.n)
            if seen is not None and not parts:
                seen(x_t, t, prediction)

        original = None if originals is None else originals.batch
        for batch in generator(denoiser, mine, cfg.seed, cfg.batch_size, fabric.device, look, original):
            parts.append(batch.images.permute(0, 2, 3, 1).cpu().numpy())
            if originals is not None:
                noise.append(batch.noise.cpu().numpy())
            if seen is not None and len(parts) == 1:
                write_trajectory(out, seen, batch.images, cfg.trajectory)
        bar.update(len(mine) - bar.n)
    channels, height, width = model.facts.shape
    none = np.empty((0, height, width, channels), np.uint8)
    made = {"samples": np.concatenate([none, *parts])}
    if originals is not None:
        made["noise"] = np.concatenate([np.empty((0, *model.facts.shape), np.float32), *noise])
    for name, array in made.items():
        write_atomically(out / f".{name}_{fabric.global_rank}.npy", functools.partial(np.save, arr=array))
    fabric.barrier()
    if fabric.global_rank == 0:
        whole = {name: gather(out, name, shares, array) for name, array in made.items()}
        asked = generator.labels
        own_labels = None if asked is None else np.resize(np.array(asked, np.int64), number)
        write(out, whole["samples"], own_labels, cfg.png)
        print(f"{out / 'samples.npz'}: {number} pictures of step {model.step}; look at {out / 'grid.png'}")
        if originals is not None:
            write_atomically(out / "noise.npz", lambda file: np.savez(file, allow_pickle=False, arr_0=whole["noise"]))
            difference = np.abs(whole["samples"].astype(float) - originals.images[:number]).mean()
            print(f"{out / 'noise.npz'}: the noise they come from; {difference:.2f} of 255 levels off on average")
    fabric.barrier()


class Originals(NamedTuple):
    """Pictures that are taken to noise and back.

    Attributes:
        images: uint8 (N, H, W, C).
        labels: int64 (N,), or None.
    """

    images: "np.ndarray"
    labels: "np.ndarray | None"

    def batch(self, indices: "Sequence[int]") -> "tuple[Tensor, Tensor | None]":
        """Some of them, uint8 (B, C, H, W), and their labels (B,)."""
        import torch

        images = torch.from_numpy(self.images[indices]).permute(0, 3, 1, 2)
        return images, None if self.labels is None else torch.from_numpy(self.labels[indices])


def open_originals(cfg: DictConfig, chosen: DictConfig, shape: tuple[int, int, int]) -> Originals:
    """The pictures to be inverted.

    Raises:
        UserError: when they are missing, of another shape than the model's, or the sampler cannot invert.
    """
    from langevin.data.read_images import read_images
    from langevin.samplers.ddim import DDIM

    target = f"{DDIM.__module__}.{DDIM.__name__}"
    if chosen.sampler._target_ != target:
        raise UserError(f"invert={cfg.invert}: needs a sampler that can be taken backwards: sampler=ddim")
    images, labels = read_images(cfg.invert, "invert")
    channels, height, width = shape
    if images.shape[1:] != (height, width, channels):
        raise UserError(
            f"invert={cfg.invert}: pictures of (height, width, channels) {images.shape[1:]}; the model's are "
            f"{(height, width, channels)}"
        )
    return Originals(images, labels)


def gather(out: Path, name: str, shares: list[list[int]], own: "np.ndarray") -> "np.ndarray":
    """Put together what the processes have left in `out`, each its share of the numbers; `own` is like them."""
    import numpy as np

    whole = np.empty((sum(map(len, shares)), *own.shape[1:]), own.dtype)
    for rank, indices in enumerate(shares):
        part = out / f".{name}_{rank}.npy"
        whole[indices] = np.load(part)
        part.unlink()
    return whole


def write_trajectory(out: Path, seen: "Trajectory", images: "Tensor", num_times: int) -> None:
    """Write trajectory.png and, with every evaluation of the model, trajectory.npz: "t", and of it "x_t" and "x"."""
    import numpy as np

    from langevin.images import picture_grid, write_atomically, write_png

    picture = picture_grid(seen.rows(images, num_times), seen.columns(num_times))
    write_png(out / "trajectory.png", picture, scale=max(1, 64 // images.shape[-1]))
    arrays = {"t": np.array(seen.times)}
    for name, frames in (("x_t", seen.x_t), ("x", seen.x)):
        arrays[name] = np.stack([frame.permute(0, 2, 3, 1).numpy() for frame in frames])
    write_atomically(out / "trajectory.npz", lambda file: np.savez(file, allow_pickle=False, **arrays))


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
