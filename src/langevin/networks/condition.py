"""What a network is told about the image beside its noise level."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from langevin.errors import UserError
from langevin.networks.checked import Checked

NO_LABEL = -1
"""The label of an image whose class is unknown or withheld."""


class Condition(nn.Module, Checked, ABC):
    """A condition as an embedding that is added to that of the noise level.

    A constructor takes `dim`, the size of the embedding, from the network; its other parameters come from the config
    and from the facts of the dataset.
    """

    @abstractmethod
    def forward(self, cond: Mapping[str, Tensor] | None, batch: int) -> Tensor:
        """Embed the condition of a batch.

        Args:
            cond: what each sample shows, each value with B rows; None when nothing is known of any.
            batch: B.

        Returns:
            (B, dim).
        """


class ClassLabel(Condition):
    """A learned vector for every class, and one more for "no label".

    While training, labels are replaced by "no label" at random, so that one network learns both the conditional and the
    unconditional model, as classifier-free guidance needs (Ho & Salimans 2022, algorithm 1). The vectors start from a
    standard normal, as ADM's (Dhariwal & Nichol 2021).

    Args:
        num_classes: number of classes, at least 1; a fact of the dataset.
        dropout: probability in [0, 1] that a label is withheld while training; 0 where guidance is not wanted.
        dim: size of the embedding; handed in by the network.

    Raises:
        UserError: when a parameter is out of its range.
    """

    def __init__(self, num_classes: int, dropout: float, dim: int) -> None:
        super().__init__()
        self.require(num_classes=num_classes, dropout=dropout)
        self.num_classes = num_classes
        self.dropout = dropout
        self.table = nn.Embedding(num_classes + 1, dim)

    @classmethod
    def check(cls, *, num_classes: int, dropout: float) -> list[tuple[str, str]]:
        """List every mistake in the parameters; see `Checked.check`."""
        mistakes = []
        if num_classes < 1:
            mistakes.append(("num_classes", f"{num_classes} is no number of classes: at least 1"))
        if not 0 <= dropout <= 1:
            mistakes.append(("dropout", f"{dropout} is no probability: from 0 to 1"))
        return mistakes

    def forward(self, cond: Mapping[str, Tensor] | None, batch: int) -> Tensor:
        """Embed `cond["label"]`, (B,) integers in [-1, num_classes), -1 meaning "no label", as is None for all.

        Raises:
            UserError: when a label on the CPU is out of range. A label on a GPU is not looked at here, since reading it
                would make the CPU wait for the GPU at every step; the embedding's own assertion stops it there.
        """
        device = self.table.weight.device
        if cond is None:
            label = torch.full((batch,), NO_LABEL, device=device)
        else:
            label = cond["label"]
            if label.device.type == "cpu":
                self._require_in_range(label)
            label = label.to(device)
        if self.training and self.dropout > 0:
            label = label.masked_fill(torch.rand(batch, device=device) < self.dropout, NO_LABEL)
        # Only -1 becomes the last row: any other negative label must reach the embedding and fail there.
        return self.table(label.masked_fill(label == NO_LABEL, self.num_classes))

    def _require_in_range(self, label: Tensor) -> None:
        wrong = label[(label < NO_LABEL) | (label >= self.num_classes)]
        if len(wrong) > 0:
            raise UserError(
                f"label: {int(wrong[0])} is out of range: 0 to {self.num_classes - 1}, or {NO_LABEL} for no label"
            )
