"""What every metric of generated images has in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from torch import Tensor
from torchmetrics import Metric

from langevin.errors import UserError
from langevin.features.extractor import FeatureExtractor
from langevin.images import Figure
from langevin.metrics.gathered import Rows
from langevin.metrics.reference import Reference
from langevin.sums import SumStateMetric

Columns = Mapping[str, Tensor]
"""What is known of each of some samples, by names: (B, ...) each."""


class Plan(NamedTuple):
    """What is known of an evaluation before its first sample.

    Attributes:
        num_samples: how many samples each round has, at least 1, over all processes.
        reference: what they are compared with.
        features: the extractor.
        cond: the columns of the samples' conditions, (num_samples, ...) each; none where they have no condition.
        target: what each sample should be; None where that is not known.
        prompts: the texts that the column "prompt" of `cond` counts; None where there is no such column.
    """

    num_samples: int
    reference: Reference
    features: FeatureExtractor
    cond: Columns = MappingProxyType({})
    target: Reference | None = None
    prompts: Sequence[str] | None = None

    def key(self, official: str, otherwise: str) -> str:
        """The name under which a value is reported, see `FeatureExtractor.metric_name`, with the number of samples."""
        return f"{self.features.metric_name(official, otherwise)}@{self.num_samples}"

    def require_images(self, metric: str) -> None:
        """Check that the samples are images, for a metric that reads these.

        Raises:
            UserError: when they are not.
        """
        known = self.reference if self.target is None else self.target
        if known.samples is not None and known.samples.ndim != 4:
            raise UserError(
                f"metrics.{metric} is of images, but these samples are of shape {known.samples.shape[1:]}: drop it"
            )

    def require_pairs(self, metric: str) -> tuple[int, int, int]:
        """The shape (C, H, W) of the samples, for a metric that compares each with its target, both images.

        Raises:
            UserError: when they are not images.
        """
        self.require_images(metric)
        assert self.target is not None, "needs"
        assert self.target.samples is not None
        height, width, channels = self.target.samples.shape[1:]
        return channels, height, width

    def counts(self) -> tuple[tuple[str, int], tuple[str, int | None]]:
        """The two numbers of images, each with what a user calls it."""
        return ("num_samples", self.num_samples), ("the number of reference images", self.reference.number)


class SampleMetric(SumStateMetric, ABC):
    """A metric of generated images, exact under any number of processes and any batch size.

    `Evaluation` calls, in this order: `check`; `begin`; then for each round `update` on this process's part of the
    samples, `compute`, `reset`. What `update` gathers is added in `begin`: sums over the images, or children that are
    metrics themselves (`Moments`, `Rows`), which `compute` gets from all processes.

    Attributes:
        reports: the names of its values; `*` stands for the name of the features or a label, `N` for the number of
            samples.
        reads: the extractor's outputs that `update` reads.
        moments_of: the outputs of whose Gaussian in the reference `begin` asks.
        rows_of: the outputs of which `begin` asks for every reference image.
        needs: what `update` reads beside the samples: columns of their condition, such as "label", or "target".
        non_protocol_params: its parameters that change no value: those that only refuse an evaluation, or choose what
            is shown.
        figure: what of the last `compute` is to be looked at, the same on every process; None if nothing is.
        details: what else it found, as plain values, the same on every process; None if nothing.
    """

    reports: ClassVar[tuple[str, ...]] = ("*",)
    reads: ClassVar[tuple[str, ...]] = ()
    moments_of: ClassVar[tuple[str, ...]] = ()
    rows_of: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()
    non_protocol_params: ClassVar[tuple[str, ...]] = ()

    num_samples: int
    figure: Figure | None = None
    details: dict[str, Any] | None = None

    def record(self) -> dict[str, Any]:
        """What decides its values beside its parameters, as entries of a protocol: plain values, such as a digest."""
        return {}

    def check(self, plan: Plan) -> None:
        """Find a user's mistake before any work.

        Args:
            plan: its reference is not yet gathered, and of its extractor perhaps only `sizes` is known.

        Raises:
            UserError: when the metric cannot be computed so.
        """

    def begin(self, plan: Plan) -> None:
        """Add the states, and keep of the reference what `compute` needs; an override calls this first.

        Args:
            plan: its reference is gathered, the same on every process.
        """
        self.num_samples = plan.num_samples

    @abstractmethod
    def update(self, samples: Columns, cond: Columns, index: Tensor, target: Tensor | None = None) -> None:
        """Count in some samples.

        Args:
            samples: ``stored``, the samples (B, C, *size), of images uint8; and the extractor's outputs, `reads` among
                them.
            cond: the columns of their conditions, (B, ...) each: ``label``, the requested class, is integers (B,), and
                so is ``prompt``, which of `Plan.prompts` was requested.
            index: which of the ``num_samples`` each one is, integers (B,).
            target: what each should have been, as stored, (B, C, *size); None where that is not known.
        """

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """Return the values by their reported names, after summing the states over all processes.

        Raises:
            RuntimeError: when other than `num_samples` images were counted in.
        """

    def reset(self) -> None:
        """Forget the samples, keep the reference."""
        super().reset()
        for child in self.children():
            if isinstance(child, Metric):
                child.reset()

    def _require_all(self, count: int | Tensor) -> None:
        # A metric named @50000 must not be computed on fewer images, or on some twice.
        if int(count) != self.num_samples:
            raise RuntimeError(f"{type(self).__name__} was given {int(count)} of {self.num_samples} samples")


class SampleSetMetric(SampleMetric):
    """A metric that needs the features of all samples at once, in the images' order."""

    reads = ("features",)

    samples: Rows

    def begin(self, plan: Plan) -> None:
        """Allocate the rows, see the base class."""
        super().begin(plan)
        self.samples = Rows(plan.features.sizes["features"])

    def update(self, samples: Columns, cond: Columns, index: Tensor, target: Tensor | None = None) -> None:
        """Keep ``features`` (B, D) and the number of each image, see the base class."""
        self.samples.update(samples["features"], index)

    def _samples(self) -> Tensor:
        """The features of the samples (`num_samples`, D), by the number of the image.

        Raises:
            RuntimeError: when an image is missing or was counted in twice.
        """
        samples: Tensor = self.samples.compute()
        self._require_all(len(samples))
        return samples


class FeatureSetMetric(SampleSetMetric):
    """A metric that needs the features of the whole reference too."""

    rows_of = ("features",)

    reference: Tensor

    def begin(self, plan: Plan) -> None:
        """Keep the reference's features too, see the base class."""
        super().begin(plan)
        self.reference = plan.reference.rows("features")

    def _sets(self) -> tuple[Tensor, Tensor]:
        """The features of the samples, see `_samples`, and of the reference (M, D), in the images' order."""
        samples = self._samples()
        return samples, self.reference.to(samples.device)
