"""Compiled blocks compute what they computed before."""

import copy
import time

import torch
from gpu_helpers import Outcome
from network_helpers import images, labelled, randomize, tiny

from langevin.features.extractor import _without_tf32
from langevin.networks.compiled import compile_blocks


def test_compiled_blocks_are_the_same(device, record_property):
    """In float32 alone: on an H100 another precision takes a minute more to compile."""
    network = tiny(in_channels=3, out_channels=3, condition=labelled(), scale_shift=True)
    randomize(network)
    network.to(device)
    compiled = copy.deepcopy(network)
    compile_blocks(compiled)
    x, cond = images(4, 8), {"label": torch.tensor([0, 1, 2, -1])}
    with _without_tf32():
        expected = Outcome(network, device, x, cond, copied=False)
        began = time.monotonic()
        ours = Outcome(compiled, device, x, cond, copied=False)
        record_property("seconds with compilation", time.monotonic() - began)
        began = time.monotonic()
        Outcome(compiled, device, x, cond, copied=False)
        record_property("seconds once compiled", time.monotonic() - began)
    errors = ours.errors(expected)
    for name, error in errors.items():
        record_property(name, error)
    assert max(errors.values()) < 1e-4, errors
