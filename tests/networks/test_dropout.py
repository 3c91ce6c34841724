"""Dropout on a CPU: the share that is dropped, the scale of what is kept, and no pattern among them."""

import pytest
import torch

from langevin.networks.blocks.dropout import Dropout


def dropped(p, shape=(8, 32, 64, 64), memory_format=torch.contiguous_format):
    torch.manual_seed(0)
    return Dropout(p).train()(torch.ones(shape).to(memory_format=memory_format))


@pytest.mark.parametrize("p", [0.1, 0.13, 0.5, 0.9])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_drops_so_many_and_scales_the_others(p, memory_format):
    out = dropped(p, memory_format=memory_format)
    n = out.numel()
    share = (out == 0).double().mean().item()
    assert abs(share - p) < 5 * (p * (1 - p) / n) ** 0.5 + 1e-5
    assert out[out != 0].unique().tolist() == pytest.approx([1 / (1 - p)], rel=1e-4)
    assert abs(out.double().mean().item() - 1) < 5 * (p / (1 - p) / n) ** 0.5, "the mean stays"


def test_every_number_is_by_itself():
    """Neighbours in any direction are dropped together as often as chance has it."""
    gone = (dropped(0.3) == 0).double()
    for axis in range(4):
        together = (gone.narrow(axis, 1, gone.shape[axis] - 1) * gone.narrow(axis, 0, gone.shape[axis] - 1)).mean()
        assert abs(together.item() - 0.09) < 5 * (0.09 * 0.91 / gone.numel()) ** 0.5 * 2


def test_the_gradient_is_that_of_what_was_kept():
    x = torch.randn(2, 8, 4, 4, requires_grad=True)
    torch.manual_seed(0)
    out = Dropout(0.4).train()(x)
    out.sum().backward()
    torch.testing.assert_close(x.grad, out.detach() / x.detach())


def test_of_bfloat16_stays_bfloat16():
    assert Dropout(0.5).train()(torch.ones(1, 4, 2, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("module", [Dropout(0.5).eval(), Dropout(0.0).train()])
def test_else_it_is_the_identity(module):
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(module(x), x)


def test_it_is_repeatable():
    assert torch.equal(dropped(0.1), dropped(0.1))
