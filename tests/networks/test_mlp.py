import math

import pytest
import torch
from network_helpers import Sequence, labelled, randomize
from torch.nn import functional

from langevin.conditions.condition import Condition, Context, Several
from langevin.errors import OptionError, UserError
from langevin.networks.embeddings import sinusoidal_embedding
from langevin.networks.mlp import MLP

TINY = {"width": 12, "depth": 2, "time_channels": 8, "dropout": 0.0}
TIMES = torch.tensor([0.0, 1.5, 299.0])


def made(**changes):
    return MLP(**({"in_channels": 2, "out_channels": 2, "condition": None} | TINY | changes))


def tiny(**changes):
    network = made(**changes)
    randomize(network)
    return network


def vectors(batch=3, size=2, seed=0):
    return torch.randn(batch, size, generator=torch.Generator().manual_seed(seed))


class Beside(Condition):
    """Vectors `cond["beside"]` (B, 3) that are seen beside x."""

    inputs = frozenset({"beside"})
    concat_channels = 3

    def __init__(self, dim):
        super().__init__()

    def forward(self, cond, batch):
        return Context(concat=torch.zeros(batch, 3) if cond is None else cond["beside"])

    def null(self, cond):
        return {**cond, "beside": torch.zeros_like(cond["beside"])}


def test_is_its_formula():
    """Written out, with a label and vectors beside x, in float64."""
    network = tiny(out_channels=4, condition=lambda dim: Several({"a": labelled(5)(dim=dim), "b": Beside(dim)}))
    network = network.double()
    weights = network.state_dict()

    def linear(name, h):
        return h @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    x, beside, label = vectors().double(), vectors(3, 3, seed=1).double(), torch.tensor([4, 0, -1])
    waves = sinusoidal_embedding(TIMES, 8).double()
    table = weights["condition.parts.0.table.weight"]
    embedding = functional.silu(linear("time.linear2", functional.silu(linear("time.linear1", waves))) + table[label])
    h = linear("first", torch.cat([x, beside], dim=1))
    for block in ("blocks.0", "blocks.1"):
        inner = linear(f"{block}.linear1", functional.silu(h)) + linear(f"{block}.embed", embedding)
        h = h + linear(f"{block}.linear2", functional.silu(inner))
    expected = linear("last", functional.silu(h))
    assert expected.std() > 0.1
    torch.testing.assert_close(network(x, TIMES, {"label": label, "beside": beside}), expected, rtol=0, atol=1e-12)


def test_starts_at_zero_with_blocks_that_change_nothing():
    network = made()
    assert torch.equal(network(vectors(), TIMES), torch.zeros(3, 2))
    features, embedding = torch.randn(3, 12), torch.randn(3, 8)
    assert torch.equal(network.blocks[1](features, embedding), features)
    assert made(width=3000).first(vectors(500)).std().item() == pytest.approx(math.hypot(3, 1), rel=0.1)


def test_sees_noise_level_and_label():
    network = tiny(condition=labelled(5))
    x = vectors(1).repeat(3, 1)
    levels = network(x, TIMES)
    labels = network(x, TIMES[:1].repeat(3), {"label": torch.tensor([-1, 2, 3])})
    for outputs in (levels, labels):
        assert torch.pdist(outputs).min() > 0.01
    torch.testing.assert_close(labels[0], levels[0])


def test_drops_features_in_training_alone():
    network = tiny(dropout=0.5)
    x = vectors()
    assert not torch.equal(network.train()(x, TIMES), network(x, TIMES))
    assert torch.equal(network.eval()(x, TIMES), tiny().eval()(x, TIMES))


def test_tokens_are_refused():
    with pytest.raises(
        UserError, match=r"conditions: give tokens alone, to which MLP does not attend; allowed: .*cross_attention=true"
    ):
        tiny(condition=Sequence)(vectors(), TIMES)


def test_an_odd_embedding_is_refused():
    with pytest.raises(OptionError) as error:
        made(time_channels=7)
    assert error.value.found == (("time_channels", "is 7; allowed: an even number, half sines and half cosines"),)
