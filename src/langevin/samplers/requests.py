"""What is to be sampled: the condition of each image, by its number."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.errors import UserError


class Beside(NamedTuple):
    """Stored images (B, C, *size) that are looked at beside samples, by what they are; their size may be smaller.

    Attributes:
        before: what the samples were made of.
        after: what they should be, where that is known.
    """

    before: Mapping[str, Tensor]
    after: Mapping[str, Tensor]


class Requests(ABC):
    """The conditions of any number of images, the same on every process.

    Attributes:
        in_turn: whether every class comes in turn, for want of a choice.
    """

    in_turn: bool = False

    @property
    def prompts(self) -> Sequence[str] | None:
        """The texts that the column "prompt" counts; None where nothing is requested by a text."""
        return None

    @abstractmethod
    def cond(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Condition:
        """What is known of some images' conditions, columns (B, ...) each; none for an unconditional model.

        Metrics look at it: "label" is a class, "prompt" is one of `prompts` by its number, both int64.
        """

    def model_cond(
        self, denoiser: Denoiser, indices: Sequence[int], seed: int, device: torch.device | str
    ) -> Condition:
        """The columns that a model is given: labels as in `cond`, and what is computed of prompts and given images.

        Args:
            denoiser: the model.
            indices: of which samples.
            seed: of the samples.
            device: where the columns go.
        """
        return self.cond(indices, device)

    def beside(self, indices: Sequence[int]) -> "Beside":
        """What some samples were made of, to be looked at beside them."""
        return Beside({}, {})

    def targets(self, indices: Sequence[int]) -> Tensor | None:
        """What some samples should be, as stored, (B, C, *size), where that is known."""
        return None

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """What decides the conditions, as plain values for a protocol."""


class FurtherRequests(Requests):
    """Other requests, to which a subclass adds something.

    Args:
        requests: the others, such as labels.
    """

    def __init__(self, requests: Requests) -> None:
        self.requests = requests

    @property
    def prompts(self) -> Sequence[str] | None:
        """See `Requests`: of the other requests."""
        return self.requests.prompts

    def cond(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Condition:
        """See `Requests`: of the other requests alone."""
        return self.requests.cond(indices, device)

    def beside(self, indices: Sequence[int]) -> Beside:
        """See `Requests`: of the other requests."""
        return self.requests.beside(indices)

    def targets(self, indices: Sequence[int]) -> Tensor | None:
        """See `Requests`: of the other requests."""
        return self.requests.targets(indices)


class Labels(Requests):
    """Classes in turn: image i is of class ``labels[i % len(labels)]``, the column "label", int64.

    Args:
        num_classes: the model's classes; None for an unconditional model.
        labels: the requested classes; None for every class in turn.

    Raises:
        UserError: when labels are given to an unconditional model, or lie outside its classes.
    """

    def __init__(self, num_classes: int | None, labels: Sequence[int] | None = None) -> None:
        self.in_turn = num_classes is not None and labels is None
        if num_classes is None:
            if labels is not None:
                raise UserError(
                    f"labels is {list(labels)}; the model is not conditioned on labels, so leave labels out"
                )
        else:
            labels = range(num_classes) if labels is None else labels
            if not labels or min(labels) < 0 or max(labels) >= num_classes:
                raise UserError(f"labels is {list(labels)}; allowed: whole numbers from 0 to {num_classes - 1}")
        self.labels = None if labels is None else list(labels)

    def cond(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Condition:
        """See `Requests`."""
        if self.labels is None:
            return {}
        return {"label": torch.tensor([self.labels[index % len(self.labels)] for index in indices], device=device)}

    def record(self) -> dict[str, Any]:
        """See `Requests`."""
        return {"labels": self.labels}
