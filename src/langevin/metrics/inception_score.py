"""The Inception Score."""

from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from langevin.errors import UserError
from langevin.metrics.base import Columns, Plan, SampleMetric

SHUFFLE_SEED = 2020
"""The seed by which torch-fidelity deals the samples out to the splits."""


class InceptionScore(SampleMetric):
    """``exp(E KL(p(y|x) | p(y)))``, mean and standard deviation over splits of the samples; higher is better.

    Salimans et al. 2016 (arXiv 1606.03498, section 4), computed as torch-fidelity does: samples shuffled with a fixed
    seed, splits of equal size up to one, standard deviation with ddof 0, in float64. In [1, number of classes].
    Reported as ``inception_score@N`` and ``inception_score_std@N`` on the official Inception weights, else as
    ``classifier_score_<extractor>@N`` and ``classifier_score_std_<extractor>@N``. It looks at no reference.

    Args:
        splits: number of splits, at least 1 and at most the number of samples.
    """

    reports = ("inception_score@N", "classifier_score_*@N", "inception_score_std@N", "classifier_score_std_*@N")
    reads = ("logits",)
    higher_is_better = True

    count: Tensor
    probabilities: Tensor
    negative_entropy: Tensor
    split_of: Tensor

    def __init__(self, splits: Annotated[int, Ge(1)] = 10) -> None:
        super().__init__()
        self.splits = splits

    def check(self, plan: Plan) -> None:
        """Refuse fewer samples than splits, see the base class."""
        if plan.num_samples < self.splits:
            raise UserError(
                f"num_samples={plan.num_samples} is too few for metrics.inception_score.splits={self.splits}: each "
                "split needs a sample: use more samples or fewer splits"
            )

    def begin(self, plan: Plan) -> None:
        """Deal the samples out to the splits and add the sums, see the base class."""
        super().begin(plan)
        names = (("inception_score", "classifier_score"), ("inception_score_std", "classifier_score_std"))
        self.keys = [plan.key(*name) for name in names]
        # Sample order[j] comes j-th after the shuffle, and split k holds the j in [k N // splits, (k + 1) N // splits).
        order = np.random.RandomState(SHUFFLE_SEED).permutation(plan.num_samples)
        sizes = np.diff([k * plan.num_samples // self.splits for k in range(self.splits + 1)])
        split_of = torch.empty(plan.num_samples, dtype=torch.int64)
        split_of[torch.from_numpy(order)] = torch.from_numpy(np.repeat(np.arange(self.splits), sizes))
        self.register_buffer("split_of", split_of, persistent=False)

        classes = plan.features.sizes["logits"]
        self._add_sum("count", self.splits, dtype=torch.int64)
        self._add_sum("probabilities", self.splits, classes)
        self._add_sum("negative_entropy", self.splits)

    def update(self, samples: Columns, cond: Columns, index: Tensor, target: Tensor | None = None) -> None:
        """Add the class probabilities of ``logits`` (B, classes) to their splits, see the base class."""
        log_p = samples["logits"].double().log_softmax(1)
        p = log_p.exp()
        # A matrix product, because index_add_ on a GPU adds in no fixed order.
        member = torch.nn.functional.one_hot(self.split_of[index], self.splits).T
        negative_entropy = member.double() @ (p * log_p).sum(1)
        self._accumulate(count=member.sum(1), probabilities=member.double() @ p, negative_entropy=negative_entropy)

    def compute(self) -> dict[str, Tensor]:
        """Return the mean over the splits and the standard deviation, see the base class."""
        self._require_all(self.count.sum())
        marginal = self.probabilities / self.count[:, None]
        # E KL(p | q) = E sum p log p - sum q log q, for q is the mean of p.
        divergence = self.negative_entropy / self.count - torch.xlogy(marginal, marginal).sum(1)
        scores = divergence.exp()
        return dict(zip(self.keys, (scores.mean(), scores.std(correction=0)), strict=True))
