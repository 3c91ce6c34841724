"""Low-rank changes of the matrices of a network (LoRA)."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Annotated, Any

from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from langevin.adapters.adapter import Adapter, plain_name
from langevin.errors import OptionError, UserError, missing_package
from langevin.magnitudes import mp_layers
from langevin.text.encoder import TextEncoder

ATTENTION = r"(.*\.)?(qkv|query|kv|project)"
"""The names of the projections of all attention layers."""
ALL = r".*"
MARK = ".lora_"
"""What stands in the names of the trained weights, as peft calls them; no other weights have it."""
DOWN, UP = f"{MARK}A.default.weight", f"{MARK}B.default.weight"
SHOWN = 3
"""How many layers a message names as an example."""


class LoRA(Adapter):
    """Adds ``alpha / rank * B A`` to the weight matrices W of some layers; A and B of that rank are trained.

    A maps to `rank` features and starts at random, B maps back and starts at zero. The weights of a convolution are the
    matrix (out, in * h * w). Queries, keys and values that one layer projects share A.

    Source: Hu et al. 2021 (arXiv 2106.09685, section 4.1); in training by the package `peft`.

    Args:
        rank: of the change.
        alpha: its factor, over the rank; so that another rank needs no other learning rate.
        dropout: probability that an input of A is replaced by zero in training.
        targets: which layers, outside of text encoders: "attention", the projections of attention, "all", every linear
            layer and convolution, or a regular expression for their whole names.
        text_encoder: whether the linear layers of a text encoder that is trained with the model are changed too.

    Raises:
        OptionError: when `targets` is no regular expression.
    """

    def __init__(
        self,
        rank: Annotated[int, Ge(1)],
        alpha: Annotated[float, Gt(0)],
        dropout: Annotated[float, Ge(0), Lt(1)],
        targets: str,
        text_encoder: bool,
    ) -> None:
        self.rank = rank
        self.alpha = alpha
        self.dropout = dropout
        self.targets = targets
        self.text_encoder = text_encoder
        try:
            self.pattern = re.compile({"attention": ATTENTION, "all": ALL}.get(targets, targets))
        except re.error as error:
            text = f"is {targets!r}, no regular expression ({error}); allowed: one, attention, or all"
            raise OptionError("targets", text) from error

    def layers(self, network: nn.Module) -> list[str]:
        """The full names of the layers that are changed.

        Raises:
            OptionError: when there are none.
        """
        known = [name for name, layer in network.named_modules() if is_matrix(layer)]
        encoders = tuple(f"{name}." for name, part in network.named_modules() if isinstance(part, TextEncoder))
        of_text = [name for name in known if name.startswith(encoders)]
        others = [name for name in known if name not in of_text]
        found = [name for name in others if self.pattern.fullmatch(name)]
        if not found:
            examples = f"{', '.join(others[:SHOWN])}{', ...' if len(others) > SHOWN else ''}"
            text = f"is {self.targets!r}, which no layer of this network fits"
            allowed = f"all, or a regular expression for whole names, such as {examples}"
            raise OptionError("targets", f"{text}; allowed: {allowed}")
        if self.text_encoder and not of_text:
            text = "is true, but no text encoder is trained with this model; allowed: false, or such as text=learned"
            raise OptionError("text_encoder", text)
        return found + (of_text if self.text_encoder else [])

    def check(self, network: nn.Module) -> None:
        """See `Adapter`."""
        if find_spec("peft") is None:
            raise missing_package("adapter=lora", "peft", "lora")
        if getattr(network, "adapter", None) is not None:
            text = "is chosen beside model.control=true, an adapter too; allowed: one of the two"
            raise UserError(text)
        if mp_layers(network):
            text = f"does not suit {type(network).__name__}, whose weights count by their direction alone"
            raise UserError(f"{text}; allowed: adapter=none")
        self.layers(network)

    def inject(self, network: nn.Module) -> None:
        """See `Adapter`."""
        self.check(network)
        from peft import LoraConfig, inject_adapter_in_model  # takes seconds

        # As one expression: of a list, every name would count that ends with one of its entries.
        names = "|".join(re.escape(name) for name in self.layers(network))
        network.requires_grad_(False)
        # The package has its alpha typed as whole, and takes any.
        options: dict[str, Any] = {"r": self.rank, "lora_alpha": self.alpha, "lora_dropout": self.dropout}
        inject_adapter_in_model(LoraConfig(target_modules=names, **options), network)
        network.adapter = MARK  # type: ignore[assignment]

    def merged(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Adapter`. It needs no package, and is computed in double precision, so that it is the same anywhere."""
        merged = {plain_name(name): tensor for name, tensor in weights.items()}
        for name in weights:
            layer, is_down, _ = name.partition(DOWN)
            if not is_down or not {f"{layer}.weight", f"{layer}{UP}"} <= merged.keys():
                continue
            matrix, down, up = (merged[each] for each in (f"{layer}.weight", name, f"{layer}{UP}"))
            if self.fits(matrix, down, up):
                product = up.double().flatten(1) @ down.double().flatten(1)
                change = self.alpha / self.rank * product.reshape(matrix.shape)
                merged[f"{layer}.weight"] = (matrix.double() + change).to(matrix.dtype)
                del merged[name], merged[f"{layer}{UP}"]
        return merged

    def fits(self, matrix: Tensor, down: Tensor, up: Tensor) -> bool:
        """Whether the sizes are those of this rank: a stranger's small factors may be of a huge matrix."""
        if matrix.ndim < 2:
            return False
        rows, *columns = matrix.shape
        ones = [1] * (matrix.ndim - 2)  # of a convolution back, of one pixel
        return [*up.shape] == [rows, self.rank, *ones] and [*down.shape] == [self.rank, *columns]


def is_matrix(layer: nn.Module) -> bool:
    """Whether a layer's weight is one matrix."""
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
