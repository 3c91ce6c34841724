"""Class labels."""

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from langevin.conditions.condition import Condition, Context
from langevin.errors import UserError

NULL_CLASS = -1
"""The label of a sample whose class is unknown or dropped."""


class ClassLabel(Condition):
    """A learned vector for every class, and one more for "no label".

    In training, labels are replaced by "no label" at random (`drop`), so that one network learns both the
    conditional and the unconditional model, as classifier-free guidance needs (Ho & Salimans 2022, algorithm 1). The
    vectors start from a standard normal, as ADM's (Dhariwal & Nichol 2021), where the network does not start them
    itself.

    Args:
        num_classes: number of classes; a fact of the dataset.
        dropout: probability that a label is dropped in training; 0 where guidance is not wanted.
        dim: size of the embedding; handed in by the network.
    """

    inputs = frozenset({"label"})

    def __init__(
        self, num_classes: Annotated[int, Ge(1)], dropout: Annotated[float, Ge(0), Le(1)], dim: Annotated[int, Ge(1)]
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.dropout = dropout
        self.table = nn.Embedding(num_classes + 1, dim)

    def forward(self, cond: Mapping[str, Tensor] | None, batch: int) -> Context:
        """Embed `cond["label"]`, (B,) integers in [-1, num_classes), -1 meaning "no label", as is None for all.

        Raises:
            UserError: when a label on the CPU is out of range. A label on a GPU is not looked at here, since reading it
                would make the CPU wait for the GPU at every step; the embedding's own assertion stops it there.
        """
        device = self.table.weight.device
        if cond is None:
            label = torch.full((batch,), NULL_CLASS, device=device)
        else:
            label = cond["label"]
            if label.device.type == "cpu":
                self._require_in_range(label)
            label = label.to(device)
        # Only -1 becomes the last row: any other negative label must reach the embedding and fail there.
        return Context(vector=self.table(label.masked_fill(label == NULL_CLASS, self.num_classes)))

    def null(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Condition`: every label becomes -1."""
        return {**cond, "label": torch.full_like(cond["label"], NULL_CLASS)}

    def _require_in_range(self, label: Tensor) -> None:
        wrong = label[(label < NULL_CLASS) | (label >= self.num_classes)]
        if len(wrong) > 0:
            raise UserError(
                f"label: {int(wrong[0])} is out of range: 0 to {self.num_classes - 1}, or {NULL_CLASS} for no label"
            )
