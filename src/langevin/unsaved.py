"""Parts with weights that belong to another run, and are not saved with this one."""

from typing import Any

from torch import nn


def leave_out(module: nn.Module, part: nn.Module, prefix: str) -> None:
    """Keep a part with weights of its own, which are not trained, out of what a module saves and loads.

    Args:
        module: which has it.
        part: the part.
        prefix: of the names of its weights in the module's.
    """

    def forget(_: nn.Module, state: dict[str, Any], place: str, *__: object) -> None:
        for name in [name for name in state if name.startswith(place + prefix)]:
            del state[name]

    def not_missing(_: nn.Module, found: Any) -> None:
        found.missing_keys[:] = [name for name in found.missing_keys if f".{prefix}" not in f".{name}"]

    module.register_state_dict_post_hook(forget)
    part.register_load_state_dict_post_hook(not_missing)
