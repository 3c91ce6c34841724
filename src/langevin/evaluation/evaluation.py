"""The one evaluation: used by the training callback and by langevin evaluate alike."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from langevin.errors import UserError
from langevin.evaluation.protocol import protocol
from langevin.evaluation.result import EvaluationResult
from langevin.features.extractor import BATCH, FeatureExtractor
from langevin.metrics.base import Plan, SampleMetric
from langevin.metrics.reference import Reference
from langevin.samplers.pipeline import SampleBatch

GIVEN = ("target", "prompt")
"""What metrics need that can be given beside samples."""


class Evaluation:
    """Some metrics over one extractor: each image passes through it once, for all of them.

    In this order: `prepare` and `gather` once, then any number of rounds of `measure` (each process with its part of
    the samples, possibly none). The values are the same for any number of processes and any batch size. It is not an
    `nn.Module`, so that its 95 MB of weights enter no checkpoint of a LightningModule that holds it.

    Args:
        features: the extractor; its weights are looked for only if a metric needs them.
        metrics: the metrics by their names in the config; the reported names are the metrics' own.
        directory: where the reference's statistics are kept from run to run.
        settings: each metric's parameters, for the protocol.
    """

    def __init__(
        self,
        features: FeatureExtractor,
        metrics: Mapping[str, SampleMetric],
        directory: Path,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.features = features
        self.metrics = dict(metrics)
        self.directory = directory
        self.settings = {
            name: {
                key: value
                for key, value in (settings or {}).get(name, {}).items()
                if key not in metric.non_protocol_params
            }
            for name, metric in self.metrics.items()
        }
        self.device = torch.device("cpu")
        self._waiting: list[SampleBatch] = []
        self._is_ready = False
        of_samples = {output for metric in self.metrics.values() for output in metric.reads}
        self.moments_of = sorted({output for metric in self.metrics.values() for output in metric.moments_of})
        self.rows_of = sorted({output for metric in self.metrics.values() for output in metric.rows_of})
        self.outputs = sorted({*of_samples, *self.moments_of, *self.rows_of})

    @property
    def reads_targets(self) -> bool:
        """Whether a metric compares samples with what each should be."""
        return any("target" in metric.needs for metric in self.metrics.values())

    @property
    def reads_targets_alone(self) -> bool:
        """Whether all do."""
        return all("target" in metric.needs for metric in self.metrics.values())

    def prepare(
        self,
        num_samples: int,
        reference: Reference,
        cond: Mapping[str, Tensor],
        target: Reference | None = None,
        prompts: Sequence[str] | None = None,
    ) -> None:
        """Load the weights and find every mistake: before anything is trained or sampled.

        Args:
            num_samples: how many images each round generates, over all processes.
            reference: what they are compared with.
            cond: the columns of the samples' conditions, (num_samples, ...) each; none where they have no condition.
            target: what each sample should be, where that is known.
            prompts: what the column "prompt" counts, where there is one.

        Raises:
            UserError: when a metric cannot be computed so, or there are no weights.
        """
        if num_samples < 1:
            raise UserError(f"num_samples={num_samples}: must be at least 1")
        self.plan = Plan(num_samples, reference, self.features, cond, target, prompts)
        # Before the weights are loaded, where mistakes can be found without them.
        known = hasattr(self.features, "sizes")
        if known:
            self._check()
        self.prepare_reference(reference)
        if not known:
            self._check()
        self.to(self.device)

    def _check(self) -> None:
        given = {*self.plan.cond, *(() if self.plan.target is None else ("target",))}
        for name, metric in self.metrics.items():
            if missing := [each for each in metric.needs if each not in given]:
                like = f", as langevin evaluate samples=PLACE {missing[0]}=PLACE does" if missing[0] in GIVEN else ""
                raise UserError(
                    f"metrics.{name} needs the {missing[0]} of each sample, but these have none: drop it, or measure "
                    f"samples that have one{like}"
                )
            lacking = {*metric.reads, *metric.moments_of, *metric.rows_of} - set(
                self.features.sizes if self.outputs else ()
            )
            if lacking:
                raise UserError(
                    f"metrics.{name} needs the extractor's {' and '.join(sorted(lacking))}, but {self.features.name} "
                    f"gives {', '.join(self.features.sizes)}: drop it, or choose other features"
                )
            metric.check(self.plan)

    def prepare_reference(self, reference: Reference) -> None:
        """Load the weights, and check that they are compatible with the reference.

        Raises:
            UserError: when there are none, or they do not.
        """
        self.reference = reference
        if not self.outputs:
            return
        shape = _shape_of(reference)
        if shape is not None and len(shape) != 3:
            names = [name for name, metric in self.metrics.items() if metric.reads or metric.moments_of]
            raise UserError(
                f"metrics: {', '.join(names)}: features are of images (channels, height, width), but these samples "
                f"are of shape {shape}; drop it, or take metrics=[energy_distance]"
            )
        self.features.prepare()
        if shape is not None:
            self.features.check((shape[0], shape[1], shape[2]), "reference")
        offered = set(self.features.sizes)
        reference.check(self.features, offered.intersection(self.moments_of), offered.intersection(self.rows_of))

    def require_shape(self, shape: tuple[int, ...], option: str = "the model") -> None:
        """Check that samples (C, *size) can be compared with the reference.

        Args:
            shape: theirs.
            option: what they come from, for the message.

        Raises:
            UserError: when they cannot.
        """
        wanted = _shape_of(self.reference)
        if wanted not in (None, shape):
            raise UserError(
                f"{option}: images of (channels, height, width) {shape}, but the reference's are of {wanted}; both "
                "must be of one size, and both grey or both in colour"
                if len(shape) == 3
                else f"{option}: samples of shape {shape}, but the reference's are of {wanted}; they must be the same"
            )

    def to(self, device: torch.device | str) -> Self:
        """Move the extractor and the metrics, at any time; `device` must support float64."""
        self.device = torch.device(device)
        self.features.to(self.device)
        for metric in self.metrics.values():
            metric.to(self.device)
        return self

    def gather(self) -> None:
        """Compute what the metrics need of the reference; every process must call it, a second call does nothing."""
        if self._is_ready:
            return
        self.reference.gather(self.features, self.moments_of, self.rows_of, self.device, self.directory)
        for metric in self.metrics.values():
            metric.begin(self.plan)
            metric.to(self.device)
        self._is_ready = True

    def measure(self, batches: Iterable[SampleBatch], samples: Mapping[str, Any] | None) -> EvaluationResult:
        """One round: count in this process's samples as they come, and compute; every process must call it.

        Args:
            batches: this process's part, over all processes each of the `num_samples` once.
            samples: how they are made, for the protocol: plain values; None where that is not known.

        Raises:
            UserError: when the samples and the reference differ in shape.
            RuntimeError: when the samples, over all processes, are not `num_samples`.
        """
        self.reset()
        for batch in batches:
            self.add(batch)
        values = self.compute()
        measured = {
            "num_samples": self.plan.num_samples,
            "features": self.features.record() if self.outputs else None,
            "reference": self.reference.record(),
            **({} if self.plan.target is None else {"target": self.plan.target.record()}),
        }
        settings = {name: {**self.settings[name], **metric.record()} for name, metric in self.metrics.items()}
        return EvaluationResult(
            {name: value for of_metric in values.values() for name, value in of_metric.items()},
            protocol(measured, samples, settings, values),
            {name: metric.details for name, metric in self.metrics.items() if metric.details is not None},
            {name: metric.figure for name, metric in self.metrics.items() if metric.figure is not None},
        )

    def add(self, batch: SampleBatch) -> None:
        """Count in samples, see `measure`."""
        self.require_shape(tuple(batch.samples.shape[1:]))
        self._waiting.append(batch)
        waiting = sum(len(batch.indices) for batch in self._waiting)
        self._count_in(waiting - waiting % BATCH)

    def _count_in(self, number: int) -> None:
        """Pass the first `number` waiting samples through the extractor, which is most efficient on whole batches."""
        if number == 0:
            return
        waiting = _joined(self._waiting, self.device)
        now, later = _rows(waiting, slice(number)), _rows(waiting, slice(number, None))
        self._waiting = [later]
        outputs = self.features(now.samples) if self.outputs else {}
        for metric in self.metrics.values():
            metric.update({"stored": now.samples, **outputs}, now.cond, now.indices, now.target)

    def compute(self) -> dict[str, dict[str, float]]:
        """The values of each metric by their names, of the samples added since the last `reset`; see `measure`."""
        self._count_in(sum(len(batch.indices) for batch in self._waiting))
        return {
            name: {key: float(value) for key, value in metric.compute().items()}
            for name, metric in self.metrics.items()
        }

    def reset(self) -> None:
        """Forget the samples, keep the reference."""
        self._waiting.clear()
        for metric in self.metrics.values():
            metric.reset()


def _shape_of(reference: Reference) -> tuple[int, ...] | None:
    """The shape (C, *size) of a reference's samples; None where it has none."""
    if reference.samples is None:
        return None
    *size, channels = reference.samples.shape[1:]
    return channels, *size


def _joined(batches: Sequence[SampleBatch], device: torch.device) -> SampleBatch:
    def cat(parts: Iterable[Tensor]) -> Tensor:
        return torch.cat([part.to(device) for part in parts])

    targets = [batch.target for batch in batches if batch.target is not None]
    return SampleBatch(
        cat(batch.indices for batch in batches),
        cat(batch.samples for batch in batches),
        {name: cat(batch.cond[name] for batch in batches) for name in batches[0].cond},
        target=cat(targets) if targets else None,
    )


def _rows(batch: SampleBatch, rows: slice) -> SampleBatch:
    cond = {name: column[rows] for name, column in batch.cond.items()}
    target = None if batch.target is None else batch.target[rows]
    return SampleBatch(batch.indices[rows], batch.samples[rows], cond, target=target)
