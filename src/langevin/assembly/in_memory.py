"""What `langevin sample` makes, kept in memory: for the Python API."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from langevin.assembly.sampling import SamplingPlan
from langevin.batches import Batches
from langevin.diffusion.denoiser import Denoiser
from langevin.processes import launch
from langevin.samplers.trajectory import Trajectory
from langevin.samples import Samples, Strips


def sampled(
    cfg: DictConfig, planned: SamplingPlan, denoiser: Denoiser, run_dir: Path
) -> tuple[Samples, NDArray[np.float32] | None]:
    """Make what a sampling config asks of a model, in this process.

    Args:
        cfg: of the command; its device is where the model goes.
        planned: what it asks.
        denoiser: the model.
        run_dir: the run's folder, which may know the names of classes.

    Returns:
        the samples; and of a truncated stage what the next is given, float32 (N, C, *size), else None.
    """
    device = launch(cfg.accelerator, cfg.devices).device
    denoiser, batches = denoiser.to(device), Batches(planned.number, cfg.batch_size, doing="sample")
    generator, modality, strips = planned.generator, planned.generator.modality, None
    seen = None if cfg.trajectory is None else Trajectory(denoiser.schedule, modality.traced, generator.show)
    parts, noisy, classes = [], [], planned.classes(run_dir)
    for batch in generator.stored(denoiser, batches, cfg.seed, device, None, seen, planned.originals):
        if seen is not None and not seen.is_complete:
            strips = Strips.of(seen, cfg.trajectory, batch.samples, modality, classes)
        parts.append(np.moveaxis(batch.samples.cpu().numpy(), 1, -1))
        noisy += [] if batch.noisy is None else [batch.noisy.cpu().numpy()]
    made = np.concatenate(parts)
    samples = Samples(made, planned.labels, planned.record, modality, strips, classes, prompts=planned.prompts)
    return samples, np.concatenate(noisy) if noisy else None
