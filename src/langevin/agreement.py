"""What the processes of a command agree on; imports torch only where it is at work already."""

import sys


def is_distributed() -> bool:
    """Whether this process is one of a group, which may have it alone as its member."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and bool(distributed.is_initialized())


def everywhere(true: bool) -> bool:
    """Whether it is true on every process; every process must ask, and waits for the others."""
    if not is_distributed():
        return true
    import torch
    from torch import distributed

    device = torch.device("cuda", torch.cuda.current_device()) if distributed.get_backend() == "nccl" else "cpu"
    agreed = torch.tensor(int(true), device=device)
    distributed.all_reduce(agreed, distributed.ReduceOp.MIN)
    return bool(agreed)
