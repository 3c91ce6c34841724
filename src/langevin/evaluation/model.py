"""Measures a model by its samples: none is kept in the end, but a killed evaluation reuses those it has made."""

from pathlib import Path
from typing import Any

from langevin.batches import Batches
from langevin.digest import digest_of
from langevin.evaluation.evaluation import Evaluation
from langevin.evaluation.result import EvaluationResult
from langevin.samplers.pipeline import Pipeline
from langevin.samplers.store import SampleStore


def measure_model(
    evaluation: Evaluation,
    generator: Pipeline,
    model: Any,
    batches: Batches,
    seed: int,
    directory: Path,
    kind: str,
    precision: str = "32-true",
) -> tuple[EvaluationResult, str, SampleStore]:
    """Compute the metrics of a model's samples; every process must call it.

    Args:
        evaluation: the metrics, prepared; they are computed on its device.
        generator: makes the samples.
        model: of which samples are made, with EMA weights as everywhere, on the same device.
        batches: this process's part of the samples.
        seed: of the samples.
        directory: holds the store of finished samples.
        kind: what the store's name begins with.
        precision: that the model is evaluated in, by Lightning's names.

    Returns:
        what was found, the digest of the model's weights, and the store, to be removed once the values are written.

    Raises:
        Interrupted: after a signal.
    """
    evaluation.gather()
    record = generator.record(model, seed, precision)
    weights = digest_of(model.network)
    store = SampleStore(directory, kind, {"weights": weights, "samples": record, "batch_size": batches.size})
    result = evaluation.measure(generator.stored(model, batches, seed, evaluation.device, store), record)
    return result, weights, store
