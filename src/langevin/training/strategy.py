"""A Lightning strategy for sharded training (FSDP)."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from langevin.training.module import DiffusionModule
from langevin.training.shares import full_tensor, like_own, share_out, summon_full_params


class Shares(DDPStrategy):
    """Trains as DDP does, with sharded weights, gradients, optimizer state and EMA weights (torch's FSDP2).

    Lightning's `ModelParallelStrategy` is not used: it reads checkpoints past our plugin, and cannot load one in
    mid-run, as `Divergence` does. A checkpoint is the same as any other strategy's: it holds full tensors, gathered one
    at a time, and each process takes its shards of them.

    Every process first makes the full network and its EMA copy on the CPU, 8 bytes a parameter: all from one seed, so
    that nothing need be sent.
    """

    def model_to_device(self) -> None:
        """Shard the networks, which are on the CPU so far, and move the rest."""
        module = self._module
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        share_out(module.model.network, module.ema.networks, mesh)
        super().model_to_device()

    def configure_ddp(self) -> None:
        """Wrap nothing: the sharded networks reduce their own gradients, and a hook those of the objective's weights.

        These are few, and every process has them all.
        """
        for weight in filter(lambda weight: weight.requires_grad, self._module.objective.parameters()):
            weight.register_post_accumulate_grad_hook(self._reduce_gradient)

    def _reduce_gradient(self, weight: Tensor) -> None:
        assert weight.grad is not None
        weight.grad = torch.as_tensor(self.reduce(weight.grad, reduce_op="mean"))

    def on_validation_start(self) -> None:
        """Gather the EMA weights."""
        self._validation = ExitStack()
        self._validation.enter_context(summon_full_params(self._module.ema.network))

    def on_validation_end(self) -> None:
        """Free the gathered EMA weights."""
        self._validation.close()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The module's state, with full tensors on the first process; all processes must call it."""
        return self._gathered(super().lightning_module_state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """An optimizer's state, likewise."""
        content: dict[str, Any] = super().optimizer_state(optimizer)
        return {**content, "state": {index: self._gathered(state) for index, state in content["state"].items()}}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load the module's state, before or after it is sharded."""
        own = self._module.state_dict()
        state = {name: like_own(value, own.get(name)) for name, value in checkpoint["state_dict"].items()}
        super().load_model_state_dict({"state_dict": state}, strict)

    @property
    def _module(self) -> DiffusionModule:
        assert isinstance(self.lightning_module, DiffusionModule)
        return self.lightning_module

    def _gathered(self, state: dict[str, Any]) -> dict[str, Any]:
        found = dict(state)
        for name, value in state.items():
            if isinstance(value, DTensor):
                gathered = full_tensor(value)
                found[name] = gathered.cpu() if self.is_global_zero else value
        return found
