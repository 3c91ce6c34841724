import math
from functools import partial

import pytest
import torch
from network_helpers import preset, randomize
from torch.nn import functional

from langevin.conditions.class_label import ClassLabel
from langevin.errors import OptionError
from langevin.networks.tutorial_unet import TutorialUNet
from langevin.training.ema import StepEMA

TINY = {"widths": [4, 6, 10], "time_channels": 8}
TIMES = torch.tensor([0.0, 17.0, 299.0])


def tiny(**changes):
    facts = {"in_channels": 3, "out_channels": 3, "image_size": 8, "condition": None}
    network = TutorialUNet(**(facts | TINY | changes))
    randomize(network)
    return network


def images(seed=0):
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_has_as_many_parameters_as_the_tutorial_prints():
    cls, own = preset("tutorial_unet")
    with torch.device("meta"):
        network = cls(in_channels=3, out_channels=3, image_size=64, condition=None, **own)
    assert sum(parameter.numel() for parameter in network.parameters()) == 62_438_883


def described(weights, x, times, *, training):
    """The network as the tutorial describes it, written out for two blocks down and two up."""

    def linear(name, h):
        return h @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def conv(name, h, **how):
        return functional.conv2d(h, weights[f"{name}.weight"], weights[f"{name}.bias"], **how)

    def normalized(name, h):
        mean, variance = h.mean((0, 2, 3)), h.var((0, 2, 3), correction=0)
        if not training:
            mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        scale = weights[f"{name}.weight"] / (variance + 1e-5).sqrt()
        return (h - mean[:, None, None]) * scale[:, None, None] + weights[f"{name}.bias"][:, None, None]

    def block(name, h):
        h = normalized(f"{name}.norm1", conv(f"{name}.conv1", h, padding=1).relu())
        h = h + linear(f"{name}.embed", embedding).relu()[:, :, None, None]
        h = normalized(f"{name}.norm2", conv(f"{name}.conv2", h, padding=1).relu())
        if name.startswith("down"):
            return conv(f"{name}.resample", h, stride=2, padding=1)
        kernel, bias = weights[f"{name}.resample.weight"], weights[f"{name}.resample.bias"]
        return functional.conv_transpose2d(h, kernel, bias, stride=2, padding=1)

    angles = [[time * 10000 ** (-i / 3) for i in range(4)] for time in times.tolist()]
    waves = torch.tensor([[math.sin(a) for a in row] + [math.cos(a) for a in row] for row in angles]).to(x)
    embedding = linear("time", waves).relu()
    upper = block("down.0", conv("first", x, padding=1))
    lower = block("down.1", upper)
    h = block("up.0", torch.cat((lower, lower), dim=1))
    return conv("last", block("up.1", torch.cat((h, upper), dim=1)))


@pytest.mark.parametrize("training", [True, False])
def test_is_the_tutorials(training):
    network = tiny().double()
    network.train()(2 * images(1).double(), TIMES)  # so that the running averages are not those of the start
    network.train(training)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    times = torch.tensor([0.0, 1.5, 7.0])  # near 0, where the float32 of the embedding hardly shows
    results = []
    for function in (network, partial(described, weights, training=training)):
        x = images().double().requires_grad_()
        output = function(x, times)
        (gradient,) = torch.autograd.grad((output * images(2)).sum(), x)
        results.append((output, gradient))
    assert all(result.std() > 0.03 for result in results[1])
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


def test_samples_mix_in_training_alone():
    network = tiny()
    together = network.eval()(images(), TIMES)
    apart = torch.cat([network(images()[i : i + 1], TIMES[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)
    network.train()
    assert (network(images(), TIMES)[:1] - network(images()[:1], TIMES[:1])).abs().max() > 0.01


def test_the_average_has_the_statistics_that_its_evaluation_needs():
    network = tiny()
    ema_model = StepEMA(network, max_decay=0.9)
    for step in range(1, 4):
        network.train()(3 + images(step), TIMES)
        ema_model.update(network, step, batch_size=3)
    # The weights stood still, so the average of them is they.
    assert torch.equal(ema_model.network(images(), TIMES), network.eval()(images(), TIMES))
    assert not torch.equal(ema_model.network(images(), TIMES), tiny().eval()(images(), TIMES))


def test_sees_noise_level_and_label():
    network = tiny(condition=partial(ClassLabel, num_classes=5, dropout=0.0)).eval()
    x = images()[:1].repeat(3, 1, 1, 1)
    levels = network(x, TIMES)
    labels = network(x, TIMES[:1].repeat(3), {"label": torch.tensor([-1, 2, 3])})
    for outputs in (levels, labels):
        assert torch.pdist(outputs.flatten(1)).min() > 0.01
    assert torch.equal(labels[0], levels[0])


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"image_size": 10}, "widths", ["3 widths", "image_size=10", "divisible by 4"]),
        ({"widths": [4]}, "widths", ["[4]", "at least two"]),
        ({"widths": []}, "widths", ["[]", "at least two"]),
        ({"time_channels": 7}, "time_channels", ["is 7;", "even"]),
    ],
)
def test_a_mistake_is_named_with_value_and_what_is_allowed(changes, field, words):
    with pytest.raises(OptionError) as error:
        tiny(**changes)
    ((found, message),) = error.value.found
    assert found == field
    assert all(word in message for word in words)
