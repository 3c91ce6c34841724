"""Compiled blocks compute what they computed before."""

import copy
import os
import signal
import warnings

import pytest
import torch
import torch._dynamo
from network_helpers import CONF, images, labelled, preset, randomize, tiny
from torch import nn

from langevin import interrupt
from langevin.conditions.condition import Several
from langevin.magnitudes import unit_magnitude
from langevin.networks.compiled import VARIANTS, blocks_of, compile_blocks


def test_the_blocks_are_the_members_of_the_outermost_lists():
    network = tiny()
    chosen = blocks_of(network)
    assert chosen[: len(network.down)] == list(network.down)
    assert set(network.up) < set(chosen)
    assert not any(a is not b and b in list(a.modules()) for a in chosen for b in chosen), "none within another"
    assert blocks_of(nn.Sequential(nn.Linear(1, 1))) == []


def test_the_parts_of_a_condition_are_no_blocks():
    network = tiny(condition=lambda dim: Several({"label": labelled()(dim=dim)}))
    assert len(blocks_of(network)) == len(blocks_of(tiny()))


def shallow(own):
    """The same kinds of blocks, few and narrow."""
    if "depth" in own:
        return own | {"depth": 1}
    if "channel_multipliers" not in own:
        return own
    small = {"channel_multipliers": [1, 2], "blocks_per_level": 1, "channels": 32, "dropout": 0.0}
    return own | small | {"head_channels": own["head_channels"] and 16, "attention_resolutions": [8]}


@pytest.mark.parametrize("dim", [None, 1])
def test_magnitudes_break_no_graph(dim):
    """EDM2's blocks divide by some at every layer."""
    x = torch.randn(3, 4, 5)
    torch._dynamo.reset()
    assert torch.equal(torch.compile(unit_magnitude, backend="eager", fullgraph=True)(x, dim), unit_magnitude(x, dim))
    torch._dynamo.reset()


PRESETS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
QUICK = "mlp"


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n == QUICK else [pytest.mark.slow]) for n in PRESETS])
def test_every_block_is_one_graph_traced_once_for_a_batch_size(name):
    """Each is traced to its end, so that the compiler makes one program of it; dropout alone differs on a CPU."""
    cls, own = preset(name)
    traced = []

    def backend(graph, _):
        traced.append(graph)
        return graph.forward

    size = (16,) * cls.axes
    facts = {"in_channels": 3, "out_channels": 3, "condition": None} | ({"image_size": 16} if size else {})
    network = cls(**facts, **shallow(own))
    blocks = blocks_of(network) or [network]
    torch._dynamo.reset()
    for block in blocks:
        block.compile(dynamic=False, fullgraph=True, backend=backend)
    counts = []
    with torch._dynamo.config.patch(recompile_limit=VARIANTS * len(blocks)):
        for batch in (2, 2, 3):
            network(torch.randn(batch, 3, *size), torch.full((batch,), 500.0)).square().mean().backward()
            counts.append(len(traced))
    torch._dynamo.reset()
    assert 1 <= counts[0] <= len(blocks)
    assert counts[1] == counts[0]
    assert counts[2] == 2 * counts[0]


@pytest.mark.slow
def test_outputs_and_gradients_are_the_same_to_rounding():
    network = tiny(condition=labelled(), scale_shift=True)
    randomize(network)
    compiled = copy.deepcopy(network)
    compile_blocks(compiled)
    assert compiled.state_dict().keys() == network.state_dict().keys()
    x, t, cond = images(4, 8)[:, :2], torch.linspace(1, 900, 4), {"label": torch.tensor([0, 1, 2, -1])}
    results = []
    for each in (network, compiled):
        out = each(x, t, cond)
        out.square().mean().backward()
        results.append((out.detach(), [weight.grad for weight in each.parameters()]))
    (out, gradients), (compiled_out, compiled_gradients) = results
    torch.testing.assert_close(compiled_out, out, rtol=1e-4, atol=1e-5 * out.abs().max().item())
    for ours, theirs in zip(compiled_gradients, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5 * theirs.abs().max().item() + 1e-9)


@pytest.mark.parametrize("before", [True, False], ids=["before", "amid"])
def test_a_signal_stops_the_compiler_at_once(monkeypatch, before):
    """Through all that the compiler does about failures, which is to wrap them or to go on without it."""
    handler = signal.getsignal(signal.SIGUSR1)
    monkeypatch.setattr(interrupt, "_received", "SIGTERM" if before else None)
    monkeypatch.setattr(interrupt, "_listener", os.getpid())
    signal.signal(signal.SIGUSR1, interrupt._note)
    begun = []

    def compiler(*_, **__):
        begun.append(True)
        signal.raise_signal(signal.SIGUSR1)
        begun.append("went on")

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", compiler)
    network = nn.Sequential(nn.Linear(3, 2), nn.SiLU())
    compile_blocks(network)
    try:
        signal_name = "by SIGTERM" if before else "by SIGUSR1"
        with (
            warnings.catch_warnings(),
            pytest.raises(interrupt.Interrupted, match=f"{signal_name} while the network was comp"),
        ):
            network(torch.ones(1, 3))
        assert begun == ([] if before else [True])
        interrupt._received = None
        signal.raise_signal(signal.SIGUSR1)  # from then on it is only noted
        assert interrupt.received() == "SIGUSR1"
    finally:
        signal.signal(signal.SIGUSR1, handler)
