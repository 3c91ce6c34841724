"""What a network is conditioned on beside the noise level, and what of it a network is given."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self, cast

import torch
from torch import Tensor, nn

from langevin.errors import UserError


class Context(NamedTuple):
    """What a network sees of its conditions; each entry may be absent.

    Attributes:
        vector: an embedding (B, dim), added to that of the noise level. Those of several conditions are summed.
        tokens: embeddings (B, L, dim) to attend to. Those of several conditions follow each other.
        concat: images (B, C, H, W) at the network's own resolution, which it takes beside x, or at a multiple of
            it, see `Condition.enlarge`. Those of several conditions are stacked.
        scale: factors (B,) on the effect of these images, in a network to which they are an adapter's; None: 1.
        mask: (B, L) bool: which of the tokens to attend to; None: all of them.
    """

    vector: Tensor | None = None
    tokens: Tensor | None = None
    concat: Tensor | None = None
    scale: Tensor | None = None
    mask: Tensor | None = None

    def attended(self) -> Self:
        """The same for a network that attends to its conditions: a vector by itself becomes a token."""
        if self.vector is None or self.tokens is not None:
            return self
        return self._replace(vector=None, tokens=self.vector[:, None])


class ConditioningDraws(Protocol):
    """Random numbers that belong to the samples of a batch, others at every call; see `langevin.diffusion.draws`."""

    def normal(self, shape: Sequence[int] | None = None) -> Tensor:
        """Standard normal noise: float32 (B, *shape)."""

    def uniform(self) -> Tensor:
        """A uniform number in [0, 1) for each sample: float32 (B,)."""


class Condition(nn.Module, ABC):
    """One condition of a network: which columns of a batch it reads, and what the network is given of them.

    A constructor takes `dim`, the size of an embedding, from the network; its other parameters come from the config and
    from what is known of the data.

    Attributes:
        inputs: the columns that it reads.
        derived: those of them that it computes of the samples themselves, see `derive`; no data need supply them.
        transformed: those of them that say how it has transformed samples in training, see `transform`; elsewhere they
            are missing, which says that samples are as they are.
        optional: those of them that a batch may lack for another reason: it then takes what is usual.
        dropout: the probability, in [0, 1], that it is dropped in training (condition dropout).
        concat_channels: the channels of its `Context.concat`.
        token_channels: the size of its tokens; None: it gives none, or they are of size `dim`.
        tokens_only: whether it gives tokens and nothing else, so that only a network that attends sees it.
        encoding: tells how its columns are made of what a person gives, such as words; columns mean the same to two
            models only where it is equal. None: there is one way alone, such as for class labels.
    """

    inputs: frozenset[str]
    derived: frozenset[str] = frozenset()
    transformed: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    dropout: float = 0.0
    concat_channels: int = 0
    token_channels: int | None = None
    tokens_only: bool = False
    encoding: str | None = None

    @property
    def has_dropout(self) -> bool:
        """Whether it is dropped at random in training, so that the network learns the unconditional model too."""
        return self.dropout > 0

    @classmethod
    def derived_with(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """What is `derived` with some options of a config, as far as it is known before the condition is made."""
        return cls.derived

    def derive(self, x: Tensor, draws: ConditioningDraws, sampling: bool = False) -> dict[str, Tensor]:
        """Compute the columns `derived` of clean samples; it depends on no weights.

        Args:
            x: (B, C, *size), as a model's input, mirrored where training mirrors, before a codec encodes them.
            draws: their random numbers, for this alone.
            sampling: whether the columns are for sampling and likelihoods, not for a loss: where training varies at
                random how good they are, such as by conditioning augmentation, they are then as good as can be.

        Returns:
            each column with B rows, on the device of x.
        """
        return {}

    @property
    def mirrors(self) -> bool:
        """Whether it mirrors samples and says so, so that the data is to mirror none."""
        return False

    def transform(self, x: Tensor, draws: ConditioningDraws) -> tuple[Tensor, dict[str, Tensor]]:
        """Transform clean samples at random, for training; it depends on no weights.

        Args:
            x: (B, C, *size), as a model's input, before anything is derived of them.
            draws: their random numbers, for this alone.

        Returns:
            the transformed samples; and the columns `transformed`, each with B rows, on the device of x.
        """
        return x, {}

    def sampled(self) -> "Condition | None":
        """What is left of it where nothing is transformed, as in sampling; None: nothing."""
        return self

    def leave_out_tokens(self) -> None:
        """Give no tokens, if there is anything else: its network attends to none, and would train weights in vain."""
        return

    @property
    def tells_all(self) -> bool:
        """Whether nothing is left to be made of what is diffused, where this is the samples themselves."""
        return False

    def enlarge(self, factor: int) -> None:
        """Give images of `factor` times the side of what is diffused, to a network that brings them down itself.

        Raises:
            UserError: when it gives images of that side alone.
        """
        if factor != 1 and self.concat_channels > 0:
            raise UserError("gives images of the size of what is diffused")

    @property
    def has_null(self) -> bool:
        """Whether it has a null value; else `null` keeps what it reads, which guidance then has on both sides."""
        return True

    @abstractmethod
    def forward(self, cond: Mapping[str, Tensor] | None, batch: int) -> Context:
        """Embed the condition of a batch.

        Args:
            cond: the condition of each sample, each value with B rows; None where no sample has one.
            batch: B.
        """

    @abstractmethod
    def null(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give `cond` with every entry that is read here replaced by its null value, of the same shape and type."""

    def finish(self, x: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """Give finished samples x (B, C, *size) with what the condition says of them exactly, such as known pixels."""
        return x

    def drop(self, cond: Mapping[str, Tensor], draw: Callable[[], Tensor]) -> dict[str, Tensor]:
        """Give `cond` with what is read here replaced by its null value for random samples: for training.

        Args:
            cond: as in `forward`.
            draw: gives uniform numbers in [0, 1), one a sample (B,), others at every call, on the device of `cond`.
        """
        if not self.has_dropout:
            return dict(cond)
        null, dropped = self.null(cond), draw() < self.dropout
        return {
            name: torch.where(dropped.reshape(-1, *[1] * (values.ndim - 1)), null[name], values)
            if name in self.inputs
            else values
            for name, values in cond.items()
        }


class Several(Condition):
    """Several conditions at once. One whose input is not in `cond` gets its null value.

    Args:
        parts: at least one condition, by any names.
    """

    def __init__(self, parts: Mapping[str, Condition]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts.values())
        self.inputs = frozenset(name for part in parts.values() for name in part.inputs)
        self.derived = frozenset(name for part in parts.values() for name in part.derived)
        self.transformed = frozenset(name for part in parts.values() for name in part.transformed)
        self.optional = frozenset(name for part in parts.values() for name in part.optional)
        self.concat_channels = sum(part.concat_channels for part in parts.values())
        sizes = (part.token_channels for part in parts.values() if part.token_channels is not None)
        self.token_channels = next(sizes, None)
        self.tokens_only = any(part.tokens_only for part in parts.values())
        self.encoding = next((part.encoding for part in parts.values() if part.encoding is not None), None)

    @property
    def has_dropout(self) -> bool:
        """See `Condition`: whether each is that has a null value, of at least one."""
        return self.has_null and all(part.has_dropout for part in self._conditions() if part.has_null)

    @property
    def has_null(self) -> bool:
        """See `Condition`."""
        return any(part.has_null for part in self._conditions())

    @property
    def mirrors(self) -> bool:
        """See `Condition`: whether any does."""
        return any(part.mirrors for part in self._conditions())

    def transform(self, x: Tensor, draws: ConditioningDraws) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Condition`: by every part, in their order."""
        columns: dict[str, Tensor] = {}
        for part in self._conditions():
            x, told = part.transform(x, draws)
            columns |= told
        return x, columns

    def sampled(self) -> Condition | None:
        """See `Condition`: of every part; one part by itself."""
        left = [part for part in (each.sampled() for each in self._conditions()) if part is not None]
        return (
            Several({str(place): part for place, part in enumerate(left)}) if len(left) > 1 else next(iter(left), None)
        )

    def leave_out_tokens(self) -> None:
        """See `Condition`: none of them."""
        for part in self._conditions():
            part.leave_out_tokens()

    def enlarge(self, factor: int) -> None:
        """See `Condition`: in every part."""
        for part in self._conditions():
            part.enlarge(factor)

    def derive(self, x: Tensor, draws: ConditioningDraws, sampling: bool = False) -> dict[str, Tensor]:
        """See `Condition`: what every part derives, in their order."""
        columns: dict[str, Tensor] = {}
        for part in self._conditions():
            columns |= part.derive(x, draws, sampling)
        return columns

    def forward(self, cond: Mapping[str, Tensor] | None, batch: int) -> Context:
        """See `Condition`."""
        return joined([part(cond if reads(part, cond) else None, batch) for part in self._conditions()])

    def null(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Condition`: what every part reads becomes its null value."""
        for part in self._conditions():
            if reads(part, cond):
                cond = part.null(cond)
        return dict(cond)

    def finish(self, x: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """See `Condition`: what every part says, in their order."""
        for part in self._conditions():
            if reads(part, cond):
                x = part.finish(x, cond)
        return x

    def drop(self, cond: Mapping[str, Tensor], draw: Callable[[], Tensor]) -> dict[str, Tensor]:
        """See `Condition`: every part's own input, independently of the others'."""
        for part in self._conditions():
            if reads(part, cond):
                cond = part.drop(cond, draw)
        return dict(cond)

    def _conditions(self) -> list[Condition]:
        return cast("list[Condition]", list(self.parts))


def joined(contexts: list[Context]) -> Context:
    """The contexts of several conditions as one."""
    vectors, tokens, images, scales, masks = (
        [part for part in parts if part is not None] for parts in zip(*contexts, strict=True)
    )
    return Context(
        torch.stack(vectors).sum(dim=0) if vectors else None,
        torch.cat(tokens, dim=1) if tokens else None,
        torch.cat(images, dim=1) if images else None,
        torch.stack(scales).prod(dim=0) if scales else None,
        _joined_masks(contexts) if masks else None,
    )


def _joined_masks(contexts: list[Context]) -> Tensor:
    """The masks of all tokens; those of a condition without a mask are all attended to."""
    given = [(tokens, mask) for _, tokens, *_, mask in contexts if tokens is not None]
    parts = [tokens.new_ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask for tokens, mask in given]
    return torch.cat(parts, dim=1)


def reads(part: Condition, cond: Mapping[str, Tensor] | None) -> bool:
    """Whether there is anything in `cond` for a condition to read."""
    return cond is not None and not part.inputs.isdisjoint(cond)
