"""Sharded weights: a process keeps its shard of every weight, and the full weight only while it computes with it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import broadcast
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from langevin.networks.compiled import blocks_of


def share_out(network: nn.Module, averages: Iterable[nn.Module], mesh: DeviceMesh) -> None:
    """Shard a network's weights and those of its EMA copies over the processes of `mesh`.

    The network gathers the weights of a block when it reaches the block, forward and backward. The EMA copies do
    not: they need `summon_full_params`.
    """
    for weight in network.parameters():
        weight.data = weight.data.contiguous()  # fully_shard takes no other memory format
    for part in (*blocks_of(network), network):
        fully_shard(part, mesh=mesh)
    weights = network.state_dict()
    for average in averages:
        state = {name: like_own(value, weights[name]) for name, value in average.state_dict().items()}
        average.load_state_dict(state, assign=True)


@contextmanager
def summon_full_params(network: nn.Module) -> Iterator[None]:
    """Have all of a network's weights on each process for as long as this lasts; every process must enter it.

    A network that is not sharded is left as it is.
    """
    shares = {name: weight for name, weight in network.named_parameters() if isinstance(weight, DTensor)}
    if not shares:
        yield
        return
    for buffer in network.buffers():
        broadcast(buffer, 0)  # of batch normalization, where each process has seen its own batches
    gathered = {name: full_tensor(weight.detach()) for name, weight in shares.items()}
    network.load_state_dict(gathered, assign=True, strict=False)
    try:
        yield
    finally:
        network.load_state_dict(shares, assign=True, strict=False)


def full_tensor(tensor: Tensor) -> Tensor:
    """The full tensor; if it is sharded, every process must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like_own(value: Any, own: Any) -> Any:
    """A tensor laid out as the one of the same shape that it replaces: this process's shard, or in its memory format.

    Any other value is returned unchanged.
    """
    if not (isinstance(value, Tensor) and isinstance(own, Tensor) and value.shape == own.shape):
        return value
    if isinstance(own, DTensor):
        value = distribute_tensor(value, own.device_mesh, own.placements, src_data_rank=None)
    elif value.stride() == own.stride():
        return value
    return torch.empty_like(own).copy_(value)  # a shard is a view of the full tensor; the copy lets that be freed


def like_weights(optimizer: Optimizer, content: dict[str, Any]) -> dict[str, Any]:
    """The state that an optimizer is about to load, each tensor laid out as the weight that it belongs to.

    A fused optimizer goes through the memory of both without looking at their formats, and a checkpoint may be of
    another strategy.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state = {
        index: {name: like_own(value, weights[index]) for name, value in values.items()}
        for index, values in content["state"].items()
    }
    return {**content, "state": state}
