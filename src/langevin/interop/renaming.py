"""What the conversions share: moving layers from one set of names to another, and writing fields as Hydra overrides."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from langevin.errors import UserError

StateDict = Mapping[str, Tensor]
Model = Mapping[str, Any]
"""A U-Net's own parameters, as in conf/model, such as {"channels": 128, ...}."""


class Renaming:
    """A state dict on its way from one set of names to another; what has been moved is gone from the source.

    Args:
        source: the state dict to convert; it is not changed.
        origin: whose it is, for messages, such as "OpenAI's UNetModel".

    Attributes:
        rest: what has not been moved yet.
        result: what has, under its new names.
    """

    def __init__(self, source: StateDict, origin: str) -> None:
        self.rest: dict[str, Tensor] = dict(source)
        self.result: dict[str, Tensor] = {}
        self.origin = origin

    def has(self, layer: str) -> bool:
        """Whether a layer of this name is still to be moved."""
        return f"{layer}.weight" in self.rest

    def take(self, name: str) -> Tensor:
        """Take a tensor out of the source.

        Raises:
            UserError: when there is none of this name.
        """
        if name not in self.rest:
            raise UserError(f"weights: '{name}' is missing; allowed: all the weights of {self.origin}")
        return self.rest.pop(name)

    def move(self, old: str, new: str) -> None:
        """Move a layer's weight and, where it has one, bias.

        Raises:
            UserError: when there is no such layer.
        """
        self.result[f"{new}.weight"] = self.take(f"{old}.weight")
        if f"{old}.bias" in self.rest:
            self.result[f"{new}.bias"] = self.take(f"{old}.bias")

    def join(self, olds: Sequence[str], new: str) -> None:
        """Move layers to one that computes them all: their outputs follow each other. One is moved, as by `move`.

        Convolutions of one pixel become linear layers.

        Raises:
            UserError: when there is no such layer.
        """
        for kind in ("weight", *(["bias"] if f"{olds[0]}.bias" in self.rest else [])):
            parts = [self.take(f"{old}.{kind}") for old in olds]
            self.result[f"{new}.{kind}"] = torch.cat([part if part.ndim < 3 else linear(part) for part in parts])

    def split(self, old: str, news: Sequence[str]) -> None:
        """Move a layer to several, each of an equal part of its outputs: the inverse of `join`.

        Raises:
            UserError: when there is no such layer.
        """
        for kind in ("weight", *(["bias"] if f"{old}.bias" in self.rest else [])):
            for new, part in zip(news, self.take(f"{old}.{kind}").chunk(len(news)), strict=True):
                self.result[f"{new}.{kind}"] = part.clone()  # no file holds views of one tensor

    def finished(self) -> dict[str, Tensor]:
        """Give the result.

        Raises:
            UserError: when something has not been moved.
        """
        if self.rest:
            name = next(iter(self.rest))
            raise UserError(f"weights: '{name}' is unknown; allowed: the weights of {self.origin}")
        return self.result


def linear(weight: Tensor) -> Tensor:
    """The weight (C', C) of a linear layer from that of a convolution of one pixel, (C', C, 1) or (C', C, 1, 1)."""
    return weight.flatten(1)


def settings(group: str, fields: Mapping[str, Any]) -> list[str]:
    """The overrides that set fields of a group, such as "model.channels=128"."""
    written = ((name, value if isinstance(value, str) else json.dumps(value)) for name, value in fields.items())
    return [f"{group}.{name}={value}" for name, value in written]


def class_overrides(num_classes: int | None, further: str | None = None) -> list[str]:
    """The overrides of a model conditioned on this many classes, without dropout, and on one thing more.

    Args:
        num_classes: None of a model without classes.
        further: the name of the other condition; None for none.
    """
    conditions = ([] if num_classes is None else ["class_label"]) + ([] if further is None else [further])
    chosen = f"conditions=[{','.join(conditions)}]"
    if num_classes is None:
        return [chosen]
    return [chosen, *settings("conditions.class_label", {"dropout": 0.0})]
