"""Measures a model by its samples: none is kept in the end, but a killed evaluation reuses those it has made."""

from pathlib import Path
from typing import Any, NamedTuple

from langevin.batches import Batches
from langevin.diffusion.denoiser import Denoiser
from langevin.digest import digest_of
from langevin.evaluation.evaluation import Evaluation
from langevin.samplers.generate import SamplePipeline
from langevin.samplers.store import SampleStore


class Measurement(NamedTuple):
    """What has been measured, and how.

    Attributes:
        values: of each metric by their names, the same on every process.
        protocol: how they were computed, see `langevin.evaluation.protocol`.
        weights: the digest of the model's.
        store: holds the samples of all processes; to be removed once the values are written.
    """

    values: dict[str, dict[str, float]]
    protocol: dict[str, Any]
    weights: str
    store: SampleStore


def measure_model(
    evaluation: Evaluation,
    generator: SamplePipeline,
    denoiser: Denoiser,
    batches: Batches,
    seed: int,
    directory: Path,
    kind: str,
    precision: str = "32-true",
) -> Measurement:
    """Compute the metrics of a model's samples; every process must call it.

    Args:
        evaluation: the metrics, prepared; they are computed on its device.
        generator: makes the samples.
        denoiser: the model, with EMA weights as everywhere, on the same device.
        batches: this process's part of the samples.
        seed: of the samples.
        directory: holds the store of finished samples.
        kind: what the store's name begins with.
        precision: that the model is evaluated in, by Lightning's names.

    Raises:
        Interrupted: after a signal.
    """
    evaluation.gather()
    record = generator.record(denoiser, seed, precision)
    weights = digest_of(denoiser.network)
    store = SampleStore(directory, kind, {"weights": weights, "samples": record, "batch_size": batches.size})
    values = evaluation.measure(generator.stored(denoiser, batches, seed, evaluation.device, store))
    return Measurement(values, evaluation.protocol(record, values), weights, store)
