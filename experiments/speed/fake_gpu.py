"""A GPU that is not there: what torch would do on one, on tensors that have shapes, types and layouts but no memory.

Torch chooses its operations by the device of the tensors, also of those of `FakeTensorMode`. Three things ask for the
hardware itself, and are given here: autocast, the kernels of attention, and the engine of the backward pass.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode

GPU = torch.device("cuda")
HALF = torch.float16
"""Stands for bfloat16, of the same size and the same casts: for that torch asks the GPU whether it can convolve."""


@contextmanager
def fake_gpu(precision: str) -> Iterator[None]:
    """Within it tensors have no memory, and a GPU is pretended.

    Args:
        precision: of forward passes, by Lightning's names: "32-true" or "bf16-mixed".
    """
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), Attention():
            torch.set_autocast_enabled("cuda", precision == "bf16-mixed")  # torch.autocast looks for a GPU
            torch.set_autocast_dtype("cuda", HALF)
            yield
    finally:
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])
        torch.clear_autocast_cache()


def made_there(make: Callable[[], nn.Module]) -> nn.Module:
    """A module whose weights and buffers are on the GPU, in the layouts that its constructor gives them."""
    with unset_fake_temporarily(), torch.device("meta"):
        module = make()
    for part in module.modules():
        for name, weight in part.named_parameters(recurse=False):
            part._parameters[name] = nn.Parameter(there(weight), requires_grad=weight.requires_grad)
        for name, buffer in part.named_buffers(recurse=False):
            part._buffers[name] = there(buffer)
    return module


def there(tensor: Tensor) -> Tensor:
    """A tensor on the GPU of the same shape, type and layout."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=GPU)


class Attention(TorchFunctionMode):
    """Gives attention the kernels that a GPU would: FlashAttention's in half precision, else the memory-efficient ones.

    Without one torch computes it by products of matrices.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Replace that function alone."""
        if func is not nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        *args, mask = (*args, None)[:4]
        assert mask is None, "no network is counted here with masks"
        assert not kwargs, kwargs
        if torch.is_autocast_enabled("cuda"):
            args = [each.to(torch.get_autocast_dtype("cuda")) for each in args]
        if args[0].dtype.itemsize == 2:
            return torch.ops.aten._scaled_dot_product_flash_attention(*args)[0]
        keeps = args[0].requires_grad
        return torch.ops.aten._scaled_dot_product_efficient_attention(*args, None, keeps)[0]


@torch.no_grad()
def backward(loss: Tensor) -> None:
    """The backward pass of a loss (), node by node: torch's own engine asks the GPU for its streams.

    As there, a node comes when all that it waits for has come, gradients that meet are added, and each is brought to
    the shape and type that its node expects.
    """
    waits: Counter[Any] = Counter()
    found, stack = {loss.grad_fn}, [loss.grad_fn]
    while stack:
        for node, _ in stack.pop().next_functions:
            if node is not None:
                waits[node] += 1
                if node not in found:
                    found.add(node)
                    stack.append(node)
    gradients: dict[Any, dict[int, Tensor]] = {loss.grad_fn: {0: torch.ones_like(loss)}}
    ready: list[Any] = [loss.grad_fn]
    while ready:
        node = ready.pop()
        own = gradients.pop(node, {})
        if hasattr(node, "variable"):
            accumulate(node.variable, own[0])
            continue
        given: Any = node(*[own.get(place) for place in range(len(node._input_metadata))]) if own else None
        given = given if isinstance(given, tuple) else (given,) * len(node.next_functions)
        for (following, place), gradient in zip(node.next_functions, given, strict=True):
            if following is None:
                continue
            if gradient is not None:
                expected = following._input_metadata[place]
                gradient = gradient.sum_to_size(expected.shape).to(expected.dtype)
                met = gradients.setdefault(following, {})
                met[place] = met[place] + gradient if place in met else gradient
            waits[following] -= 1
            if waits[following] == 0:
                ready.append(following)


def accumulate(weight: Tensor, gradient: Tensor) -> None:
    """Keep the gradient of a weight as torch does: as it is, or copied where its layout is not the weight's."""
    assert weight.grad is None
    same = all(n == 1 or a == b for n, a, b in zip(weight.shape, weight.stride(), gradient.stride(), strict=True))
    weight.grad = gradient if same else torch.empty_like(weight).copy_(gradient)
