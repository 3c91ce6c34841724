"""Whether images show what their prompts say."""

from typing import Any

import torch
from torch import Tensor

from langevin.features.clip_pairs import CLIPPairs
from langevin.metrics.base import Columns, Plan, SampleMetric

HESSEL, PREFIX = 2.5, "A photo depicts "
"""The factor of Hessel et al., and what they put before a caption."""


class CLIPScore(SampleMetric):
    """How well each image goes with its prompt by CLIP, the mean over the images; higher is better.

    ``100 max(cos, 0)`` of the embeddings of an image and its prompt, each by itself, then the mean: what papers on text
    to image report, in [0, 100], mostly 20 to 35 of good images. With `hessel`, CLIP-S of Hessel et al. 2021 (arXiv
    2104.08718, equation 1): ``2.5 max(cos, 0)`` with "A photo depicts" before the prompt. Reported as
    ``clip_score-<digest>`` or ``clip_s-<digest>``, of weights, tokenizer and normalization: values of different ones do
    not compare.

    Args:
        path: see `CLIPPairs`.
        hessel: whether it is CLIP-S.

    Raises:
        OptionError: when there is no such model.
        UserError: when transformers is not installed.
    """

    reports = ("clip_score-*", "clip_s-*")
    needs = ("prompt",)
    non_protocol_params = ("path",)
    higher_is_better = True

    count: Tensor
    total: Tensor

    def __init__(self, path: str, hessel: bool = False) -> None:
        super().__init__()
        self.pairs = CLIPPairs(path)
        self.hessel = hessel

    def record(self) -> dict[str, Any]:
        """What computes the cosines, see the base class."""
        return self.pairs.record()

    def check(self, plan: Plan) -> None:
        """Refuse samples that are no images, see the base class."""
        plan.require_images("clip_score")

    def begin(self, plan: Plan) -> None:
        """Add the sums and keep the prompts, see the base class."""
        super().begin(plan)
        assert plan.prompts is not None, "needs"
        self.prompts = plan.prompts
        self.key = f"{'clip_s' if self.hessel else 'clip_score'}-{self.pairs.digest()[:8]}"
        self._add_sum("count", dtype=torch.int64)
        self._add_sum("total")

    def update(self, samples: Columns, cond: Columns, index: Tensor, target: Tensor | None = None) -> None:
        """Count in the cosines of some samples, see the base class."""
        texts = [f"{PREFIX * self.hessel}{self.prompts[number]}" for number in cond["prompt"].tolist()]
        self._accumulate(count=len(index), total=self.pairs(samples["stored"], texts).clamp(min=0).sum())

    def compute(self) -> dict[str, Tensor]:
        """Return the mean, see the base class."""
        self._require_all(self.count)
        return {self.key: (HESSEL if self.hessel else 100) * self.total / self.count}
