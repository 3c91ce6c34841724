"""Training in shares, by Lightning."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.strategies import DDPStrategy
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from langevin.training.module import DiffusionModule
from langevin.training.shares import full_tensor, like_own, share_out, summon_full_params


class Shares(DDPStrategy):
    """Trains as DDP does, with weights, gradients, the optimizer's state and the average in shares (torch's FSDP2).

    Lightning's `ModelParallelStrategy` is not used: it reads checkpoints past our plugin, and cannot take one up in
    mid-run, as `Divergence` does. A checkpoint is what any other strategy's is: it holds whole tensors, gathered one at
    a time, and each process takes its shares of them.

    Every process makes the whole network and its average on the CPU first, 8 bytes a parameter: all from one seed, so
    that nothing need be sent.
    """

    def model_to_device(self) -> None:
        """Share out the networks, which have been on the CPU, and move what is left."""
        module = self._module
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        share_out(module.model.network, module.ema.network, mesh)
        super().model_to_device()

    def configure_ddp(self) -> None:
        """Wrap nothing: the networks themselves see to their gradients."""

    def on_validation_start(self) -> None:
        """Gather the average."""
        self._validation = summon_full_params(self._module.ema.network)
        self._validation.__enter__()

    def on_validation_end(self) -> None:
        """Drop it."""
        self._validation.__exit__(None, None, None)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The module's state, on the first process with whole tensors; all take part."""
        return self._gathered(super().lightning_module_state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """An optimizer's state, likewise."""
        content: dict[str, Any] = super().optimizer_state(optimizer)
        return {**content, "state": {index: self._gathered(state) for index, state in content["state"].items()}}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take up the module's state, before or after it is shared out."""
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
