"""Statistics of a reference for other programs, or for places without its images."""

from pathlib import Path

from omegaconf import DictConfig

from langevin.assembly.run import launch, make_evaluation, open_reference
from langevin.errors import UserError
from langevin.metrics.reference import PUBLISHED, write_statistics


def export(cfg: DictConfig) -> None:
    """Write the reference moments that the config's metrics need: mu and sigma, and ADM's mu_s and sigma_s.

    Raises:
        UserError: when no metric needs any, or the reference cannot provide them.
    """
    if not cfg.export.endswith(".npz"):
        raise UserError(f"export={cfg.export}: must end in .npz")
    evaluation = make_evaluation(cfg)
    if not evaluation.moments_of:
        raise UserError("metrics: none of these has statistics to export; allowed: fid and sfid")
    reference = open_reference(cfg)
    evaluation.prepare_reference(reference)
    fabric = launch(cfg.accelerator, cfg.devices)
    evaluation.to(fabric.device)
    outputs = evaluation.moments_of
    reference.gather(evaluation.features, outputs, (), fabric.device, evaluation.directory)
    if fabric.global_rank == 0:
        write_statistics(Path(cfg.export), reference, evaluation.features, outputs)
        names = ", ".join(name for output in outputs for name in PUBLISHED[output])
        print(f"{cfg.export}: {names} of {reference.moments(outputs[0]).number} images, {evaluation.features.name}")
    fabric.barrier()
