import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from langevin.errors import UserError
from langevin.training.ema import ImageEMA, StepEMA


class Scalar(nn.Module):
    def __init__(self, value=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(value, dtype=torch.float64))


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))


def wander(model, seed):
    """Change all weights and buffers."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator))
    model.train()(torch.randn(5, 2, 8, 8, generator=generator))


def test_is_torchs_average_over_steps():
    model = network()
    ours = StepEMA(model, max_decay=0.7, warm_up=False)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.7))
    theirs.update_parameters(model)  # torch's first update only copies
    for step in range(1, 21):
        wander(model, step)
        ours.update(model, step, batch_size=8)
        theirs.update_parameters(model)
    expected = list(theirs.module.parameters())
    torch.testing.assert_close(list(ours.network.parameters()), expected, rtol=0, atol=0)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(list(model.parameters()), expected, rtol=0.1, atol=0.1)


def test_each_weight_fades_geometrically():
    model, decay = Scalar(1.0), 0.9
    average = StepEMA(model, max_decay=decay, warm_up=False)
    values = [3.0, -2.0, 5.0, 0.5]
    for step, value in enumerate(values, 1):
        model.weight.data.fill_(value)
        average.update(model, step, batch_size=8)
    shares = [(1 - decay) * decay ** (len(values) - step) for step in range(1, len(values) + 1)]
    expected = decay ** len(values) * 1.0 + sum(share * value for share, value in zip(shares, values, strict=True))
    assert average.network.weight.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("step", "decay"), [(1, 2 / 11), (2, 3 / 12), (10, 11 / 20), (80, 81 / 90), (81, 0.9), (10_000, 0.9)]
)
def test_warm_up_begins_with_a_short_memory(step, decay):
    average = StepEMA(Scalar(), max_decay=0.9, warm_up=True)
    assert average.decay(step, batch_size=8) == pytest.approx(decay, rel=1e-12)
    assert average.decay(step, batch_size=512) == average.decay(step, batch_size=8)
    assert StepEMA(Scalar(), max_decay=0.9, warm_up=False).decay(step, batch_size=8) == 0.9


@pytest.mark.parametrize("warm_up", [True, False])
def test_without_decay_the_average_is_the_weights(warm_up):
    model = network()
    average = StepEMA(model, max_decay=0, warm_up=warm_up)
    for step in range(1, 4):
        wander(model, step)
        average.update(model, step, batch_size=8)
        for kept, weight in zip(average.network.parameters(), model.parameters(), strict=True):
            assert torch.equal(kept, weight)


@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_the_half_life_halves(batch_size):
    """After `half_life` images, half of the old weights' share is left, at any batch size."""
    model = Scalar(1.0)
    average = ImageEMA(model, half_life=640, ramp_up=0)
    model.weight.data.zero_()
    for step in range(1, 2 * 640 // batch_size + 1):
        average.update(model, step, batch_size)
        if step * batch_size == 640:
            assert average.network.weight.item() == pytest.approx(0.5, rel=1e-5)
    assert average.network.weight.item() == pytest.approx(0.25, rel=1e-5)


@pytest.mark.parametrize(
    ("step", "half_life"),
    [(1, 0.05 * 32), (10, 0.05 * 320), (625, 1000), (626, 1000), (10**6, 1000)],  # images, at 32 a step
)
def test_the_half_life_ramps_up_with_the_images_seen(step, half_life):
    average = ImageEMA(Scalar(), half_life=1000, ramp_up=0.05)
    assert average.decay(step, batch_size=32) == pytest.approx(0.5 ** (32 / half_life), rel=1e-12)
    assert ImageEMA(Scalar(), half_life=1000, ramp_up=0).decay(step, 32) == pytest.approx(0.5**0.032, rel=1e-12)


def test_is_torchs_average_over_images():
    """At a batch size that divides the half-life, an average over images is one over steps with a known decay."""
    model = network()
    ours = ImageEMA(model, half_life=100, ramp_up=0)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5 ** (25 / 100)))
    theirs.update_parameters(model)
    for step in range(1, 11):
        wander(model, step)
        ours.update(model, step, batch_size=25)
        theirs.update_parameters(model)
    torch.testing.assert_close(list(ours.network.parameters()), list(theirs.module.parameters()), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("average", [StepEMA, ImageEMA])
def test_is_a_copy_that_never_trains(average):
    model = network()
    before = [weight.clone() for weight in model.parameters()]
    copy = average(model)
    assert not copy.network.training
    assert model.training
    assert not any(weight.requires_grad for weight in copy.parameters())
    wander(model, 1)
    for kept, weight in zip(copy.network.parameters(), before, strict=True):
        assert torch.equal(kept, weight)
    with torch.enable_grad():
        copy.update(model, 1, batch_size=8)
    assert all(weight.grad_fn is None and not weight.requires_grad for weight in copy.parameters())
    assert all(weight.requires_grad for weight in model.parameters())


def test_buffers_are_copied_as_they_are():
    model = network()
    average = StepEMA(model, max_decay=0.99, warm_up=False)
    for step in range(1, 4):
        wander(model, step)
        average.update(model, step, batch_size=8)
    statistics = dict(average.network.named_buffers())
    assert set(statistics) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert statistics["1.num_batches_tracked"] == 3
    for name, buffer in model.named_buffers():
        assert torch.equal(statistics[name], buffer)
        assert statistics[name].data_ptr() != buffer.data_ptr()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StepEMA(Scalar(), max_decay=1.0), r"max_decay is 1\.0; allowed"),
        (lambda: StepEMA(Scalar(), max_decay=-0.1), r"max_decay is -0\.1; allowed"),
        (lambda: ImageEMA(Scalar(), half_life=0), r"half_life is 0; allowed"),
        (lambda: ImageEMA(Scalar(), half_life=-5), r"half_life is -5; allowed"),
        (lambda: ImageEMA(Scalar(), ramp_up=-0.05), r"ramp_up is -0\.05; allowed"),
    ],
)
def test_refuses_what_is_no_average(make, message):
    with pytest.raises(UserError, match=message):
        make()
