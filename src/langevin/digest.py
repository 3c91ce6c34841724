"""A content digest of weights, independent of their origin."""

import hashlib

import torch
from torch import nn


def digest_of(network: nn.Module) -> str:
    """The sha256, in hexadecimal digits, of a network's state: the name, type, shape and bytes of each tensor.

    The order does not count, nor does the file that they were in or the device that they are on.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # bytes of any type, bfloat16 too, which numpy does not know
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
