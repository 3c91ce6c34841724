import hashlib

import torch
from torch import nn

from langevin.digest import digest_of


def test_counts_names_types_shapes_and_bytes_in_the_order_of_names():
    network = nn.Linear(2, 1, bias=True)
    network.weight.data = torch.tensor([[1.0, -2.0]])
    network.bias.data = torch.tensor([0.5])
    of_bias = b"bias torch.float32 (1,)\n" + bytes.fromhex("0000003f")
    of_weight = b"weight torch.float32 (1, 2)\n" + bytes.fromhex("0000803f000000c0")
    assert digest_of(network) == hashlib.sha256(of_bias + of_weight).hexdigest()


def test_tensors_of_any_kind():
    network = nn.Module()
    network.register_buffer("count", torch.tensor(3))
    network.register_buffer("narrow", torch.ones(2, 3).bfloat16().T)
    network.register_buffer("flag", torch.tensor([True]))
    network.register_buffer("none", torch.zeros(0))
    before = digest_of(network)
    network.narrow[1, 1] += 1
    assert digest_of(network) != before
