"""What a network is conditioned on beside the noise level: one vector, or tokens to attend to.

A text encoder is a `Condition` of its own, to be used with `cross_attention`: its `tokens` are the encoder's sequence,
projected to `dim`, and its `forward`, for networks that take one vector, pools it; `cond` holds the text's token ids,
or the encoder's output computed in advance. An image (super-resolution, inpainting) is not a condition in this sense:
it will be a further entry of `cond`, which the forward of a network made for it concatenates to x.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated, cast

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from langevin.errors import OptionError, UserError

NULL_CLASS = -1
"""The label of an image whose class is unknown or dropped."""


class Condition(nn.Module, ABC):
    """A condition as one embedding, to be added to that of the noise level, or as several, to be attended to.

    A constructor takes `dim`, the size of an embedding, from the network; its other parameters come from the config and
    from the facts of the dataset.

    Attributes:
        inputs: names of the entries of `cond` that it reads.
    """

    inputs: frozenset[str]

    @property
    @abstractmethod
    def has_dropout(self) -> bool:
        """Whether it is dropped at random in training, so that the network learns the unconditional model too."""

    @abstractmethod
    def forward(self, cond: Mapping[str, Tensor] | None, batch: int) -> Tensor:
        """Embed the condition of a batch.

        Args:
            cond: the condition of each sample, each value with B rows; None where no sample has one.
            batch: B.

        Returns:
            (B, dim).
        """

    def tokens(self, cond: Mapping[str, Tensor] | None, batch: int) -> Tensor:
        """Embed the condition of a batch for cross-attention; by default as the one token that `forward` gives.

        Args:
            cond: as in `forward`.
            batch: B.

        Returns:
            (B, L, dim); every token is attended to, so that shorter texts are padded by a learned one.
        """
        return self(cond, batch)[:, None]

    @abstractmethod
    def null(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give `cond` with every entry that is read here replaced by its null value, of the same shape and type."""

    @abstractmethod
    def drop(self, cond: Mapping[str, Tensor], draw: Callable[[], Tensor]) -> dict[str, Tensor]:
        """Give `cond` with what is read here replaced by its null value for random samples: for training.

        Args:
            cond: as in `forward`.
            draw: gives uniform numbers in [0, 1), one a sample (B,), others at every call, on the device of `cond`.
        """


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

    @property
    def has_dropout(self) -> bool:
        """See `Condition`."""
        return self.dropout > 0

    def forward(self, cond: Mapping[str, Tensor] | None, batch: int) -> Tensor:
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
        return self.table(label.masked_fill(label == NULL_CLASS, self.num_classes))

    def null(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Condition`: every label becomes -1."""
        return {**cond, "label": torch.full_like(cond["label"], NULL_CLASS)}

    def drop(self, cond: Mapping[str, Tensor], draw: Callable[[], Tensor]) -> dict[str, Tensor]:
        """See `Condition`: a dropped label becomes -1."""
        if not self.has_dropout:
            return dict(cond)
        return {**cond, "label": cond["label"].masked_fill(draw() < self.dropout, NULL_CLASS)}

    def _require_in_range(self, label: Tensor) -> None:
        wrong = label[(label < NULL_CLASS) | (label >= self.num_classes)]
        if len(wrong) > 0:
            raise UserError(
                f"label: {int(wrong[0])} is out of range: 0 to {self.num_classes - 1}, or {NULL_CLASS} for no label"
            )


class Vector(Condition):
    """A feature vector of each image through two linear layers with SiLU between, and a learned vector for "none".

    In training, vectors are dropped at random, as labels are by `ClassLabel`.

    Args:
        size: length of the feature vectors.
        dropout: probability that a vector is dropped in training; 0 where guidance is not wanted.
        dim: size of the embedding; handed in by the network.
    """

    inputs = frozenset({"vector"})

    def __init__(
        self, size: Annotated[int, Ge(1)], dropout: Annotated[float, Ge(0), Le(1)], dim: Annotated[int, Ge(1)]
    ) -> None:
        super().__init__()
        self.size = size
        self.dropout = dropout
        self.embed = nn.Sequential(nn.Linear(size, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.none = nn.Parameter(torch.zeros(dim))

    @property
    def has_dropout(self) -> bool:
        """See `Condition`."""
        return self.dropout > 0

    def forward(self, cond: Mapping[str, Tensor] | None, batch: int) -> Tensor:
        """Embed `cond["vector"]`, (B, size) floating point, a row of NaN meaning "none", as is None for all.

        Raises:
            UserError: when the vectors have another length.
        """
        if cond is None:
            return self.none.expand(batch, -1)
        vector = cond["vector"].to(self.none)
        if vector.shape != (batch, self.size):
            allowed = f"({batch}, {self.size}), a vector for each image"
            raise UserError(f"vector: the shape {tuple(vector.shape)} does not fit: {allowed}")
        # A single NaN does not mean "none": it is a mistake that must show.
        absent = vector.isnan().all(dim=1)
        # What is absent must not reach the layers: NaN times the gradient 0 is NaN.
        embedded = self.embed(vector.masked_fill(absent[:, None], 0))
        return torch.where(absent[:, None], self.none.to(embedded.dtype), embedded)

    def null(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Condition`: every vector becomes NaN."""
        return {**cond, "vector": torch.full_like(cond["vector"], math.nan)}

    def drop(self, cond: Mapping[str, Tensor], draw: Callable[[], Tensor]) -> dict[str, Tensor]:
        """See `Condition`: a dropped vector becomes NaN."""
        if not self.has_dropout:
            return dict(cond)
        return {**cond, "vector": cond["vector"].masked_fill((draw() < self.dropout)[:, None], math.nan)}


class Several(Condition):
    """Several conditions at once: the sum of their embeddings, or the tokens of one after those of the other.

    A part whose input is not in `cond` gets its null value.

    Args:
        parts: the conditions, by any names.

    Raises:
        UserError: when there is none.
    """

    def __init__(self, parts: dict[str, Condition]) -> None:
        super().__init__()
        if not parts:
            raise OptionError("parts", "is {}; allowed: at least one condition")
        self.parts = nn.ModuleList(parts.values())
        self.inputs = frozenset(name for part in parts.values() for name in part.inputs)

    @property
    def has_dropout(self) -> bool:
        """See `Condition`."""
        return all(part.has_dropout for part in self._conditions())

    def forward(self, cond: Mapping[str, Tensor] | None, batch: int) -> Tensor:
        """See `Condition`."""
        embeddings = [part(cond if reads(part, cond) else None, batch) for part in self._conditions()]
        return torch.stack(embeddings).sum(dim=0)

    def tokens(self, cond: Mapping[str, Tensor] | None, batch: int) -> Tensor:
        """See `Condition`."""
        sequences = [part.tokens(cond if reads(part, cond) else None, batch) for part in self._conditions()]
        return torch.cat(sequences, dim=1)

    def null(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Condition`: what every part reads becomes its null value."""
        for part in self._conditions():
            if reads(part, cond):
                cond = part.null(cond)
        return dict(cond)

    def drop(self, cond: Mapping[str, Tensor], draw: Callable[[], Tensor]) -> dict[str, Tensor]:
        """See `Condition`: every part's own input, independently of the others'."""
        for part in self._conditions():
            if reads(part, cond):
                cond = part.drop(cond, draw)
        return dict(cond)

    def _conditions(self) -> list[Condition]:
        return cast("list[Condition]", list(self.parts))


def reads(part: Condition, cond: Mapping[str, Tensor] | None) -> bool:
    """Whether there is anything in `cond` for a condition to read."""
    return cond is not None and not part.inputs.isdisjoint(cond)
