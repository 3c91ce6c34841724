"""EMAs of power-function profiles, and EMAs of other widths made of their snapshots."""

import numpy as np
import pytest
import safetensors.torch
import torch
from scipy.optimize import brentq
from scipy.stats import beta
from torch import nn

from langevin.errors import UserError
from langevin.training.power_ema import PowerEMA, snapshot_of

STEPS, EVERY = 397, 8
WIDTHS = (0.05, 0.10)


def counts(width, steps):
    """How much each step counts, by scipy: on [0, 1] the profile is the density of a beta distribution."""
    exponent = brentq(lambda gamma: beta(gamma + 1, 1).std() - width, 0, 1e6)
    return np.diff(beta(exponent + 1, 1).cdf(np.arange(steps + 1) / steps))


def network():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))
    made[2].requires_grad_(False)
    return made


def trajectory():
    """The trained weights of `network` at each step (STEPS, N): a drift, a decay and a random walk."""
    model, noise = network(), np.random.default_rng(0)
    start = nn.utils.parameters_to_vector([weight for weight in model.parameters() if weight.requires_grad])
    first, s = start.detach().double().numpy(), np.arange(1, STEPS + 1)[:, None] / STEPS
    walk = noise.normal(size=(STEPS, len(first))).cumsum(0) / STEPS**0.5
    return first + np.sin(3 * s * np.arange(len(first))) + 5 * np.exp(-20 * s) + 0.3 * walk


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An average that has followed the trajectory to its end, and the folder of its snapshots."""
    folder, model = tmp_path_factory.mktemp("run"), network()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    averages = PowerEMA(model, WIDTHS, snapshot_every=EVERY)
    for step, weights in enumerate(trajectory(), 1):
        nn.utils.vector_to_parameters(torch.from_numpy(weights).float(), trained)
        model.train()(torch.randn(2, 2, 4, 4))
        averages.update(model, step, batch_size=8)
        if step % EVERY == 0:
            snapshot_of(folder, step).parent.mkdir(exist_ok=True)
            safetensors.torch.save_file(averages.snapshot(), snapshot_of(folder, step))
    return averages, model, folder


def off(weights, width):
    """How far weights are from the average of the trajectory by its definition, relative to what the steps vary by."""
    steps = trajectory()
    expected, names = counts(width, STEPS) @ steps, ["0.weight", "0.bias", "1.weight", "1.bias"]
    found = torch.cat([weights[name].double().flatten() for name in names]).numpy()
    return np.abs(found - expected).max() / steps.std(0).max()


@pytest.mark.parametrize("width", [0.01, 0.05, 0.10, 0.2, 0.28])
def test_the_standard_deviation_of_the_averaged_steps_is_the_width(width):
    steps = 5_000
    averages = PowerEMA(nn.Identity(), [width])
    decays = np.array([averages.decay(step, 8) for step in range(1, steps + 1)])
    shares = (1 - decays) * np.append(np.cumprod(decays[::-1])[::-1][1:], 1)
    assert shares.sum() == pytest.approx(1, rel=1e-12), "the initial weights do not count"
    s = np.arange(1, steps + 1)
    deviation = np.sqrt(shares @ s**2 - (shares @ s) ** 2)
    assert deviation / steps == pytest.approx(width, rel=1e-3)
    np.testing.assert_allclose(shares, counts(width, steps), atol=1e-9)


def test_each_is_the_weighted_mean_of_all_steps(run):
    averages, _, _ = run
    for width, kept in zip(WIDTHS, averages.networks, strict=True):
        assert off(dict(kept.named_parameters()), width) < 1e-5


@pytest.mark.parametrize("width", [0.04, 0.065, 0.08, 0.13, 0.16])
def test_another_width_is_the_weighted_mean_of_all_steps(run, width):
    averages, _, folder = run
    found = averages.post_hoc(width, STEPS, averages.state_dict(), folder)
    assert off(found, width) < 1e-3
    assert min(off(found, other) for other in WIDTHS) > 1e-2, "and no other mean"
    assert found.keys() == set(averages.trained), "what is frozen or counts batches stays as it is"


def test_an_earlier_checkpoint_will_do(run):
    """Of step 389, between two snapshots, and with the later one ignored."""
    _, model, folder = run
    other, trained = PowerEMA(network(), WIDTHS, snapshot_every=EVERY), list(model.parameters())[:4]
    for step, weights in enumerate(trajectory()[:389], 1):
        nn.utils.vector_to_parameters(torch.from_numpy(weights).float(), trained)
        other.update(model, step, batch_size=8)
    found = other.post_hoc(0.08, 389, other.state_dict(), folder)
    expected = counts(0.08, 389) @ trajectory()[:389]
    got = torch.cat([found[name].double().flatten() for name in other.trained]).numpy()
    assert np.abs(got - expected).max() < 1e-3 * trajectory().std(0).max()


def test_a_width_that_is_kept_is_taken_as_it_is(run, tmp_path):
    averages, _, _ = run
    for width, kept in zip(WIDTHS, averages.networks, strict=True):
        found = averages.post_hoc(width, STEPS, averages.state_dict(), tmp_path)
        assert all(torch.equal(found[name], tensor) for name, tensor in kept.state_dict().items())


def test_what_is_not_averaged_is_kept_once(run):
    averages, model, _ = run
    first, second = averages.networks
    for name, tensor in second.state_dict().items():
        is_shared = tensor.data_ptr() == first.state_dict()[name].data_ptr()
        assert is_shared == (name not in averages.trained), name
    assert torch.equal(second[1].running_mean, model[1].running_mean)


def test_buffers_are_kept_up_to_date_where_moving_the_module_has_parted_them():
    model = network()
    averages = PowerEMA(model, WIDTHS)
    averages.to(torch.float64)
    model.to(torch.float64)
    nn.init.normal_(model[1].running_mean)
    averages.update(model, 1, 8)
    assert all(torch.equal(kept[1].running_mean, model[1].running_mean) for kept in averages.networks)


def test_the_one_that_is_sampled_from_can_be_chosen():
    model = network()
    chosen, usual = PowerEMA(model, WIDTHS, width=0.10), PowerEMA(model, WIDTHS)
    assert (chosen.widths, usual.widths) == ((0.10, 0.05), (0.05, 0.10))
    assert chosen.decay(100, 8) == pytest.approx(0.99 ** (1 + 6.94), rel=1e-4)  # EDM2's gamma of 0.10
    for step in (1, 2, 3):
        nn.init.normal_(model[0].weight)
        for each in (chosen, usual):
            each.update(model, step, 8)
    assert torch.equal(chosen.network[0].weight, usual.others[0][0].weight)
    assert chosen.snapshot().keys() == usual.snapshot().keys()


def test_refuses_what_cannot_be_combined(run, tmp_path):
    averages, _, folder = run
    held = averages.state_dict()
    for width in (0.005, 0.28, 0.9, -1.0):
        with pytest.raises(UserError, match=rf"^ema_width is {width}; allowed: about 0\.0\d+ to 0\.2\d+, to which"):
            averages.post_hoc(width, STEPS, held, folder)
    with pytest.raises(UserError, match=r"of the 49 snapshots before step 397 there is no .*step_00000008"):
        averages.post_hoc(0.08, STEPS, held, tmp_path)
    with pytest.raises(UserError, match=r"no snapshot before step 8, .*snapshot_every is 8; allowed: 0\.05, 0\.1$"):
        averages.post_hoc(0.08, 8, held, folder)
    alone = {name: tensor for name, tensor in held.items() if name.startswith("network.")}
    with pytest.raises(UserError, match="the checkpoint holds one EMA alone"):
        averages.post_hoc(0.08, STEPS, alone, folder)
    of_others = PowerEMA(nn.Conv2d(2, 4, 3), WIDTHS, snapshot_every=EVERY)
    with pytest.raises(UserError, match=r"step_00000008.* is no snapshot of this run's EMAs"):
        of_others.post_hoc(0.08, STEPS, of_others.state_dict(), folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": []}, r"widths is \[\]; allowed: at least one"),
        ({"widths": [0.05, 0.05]}, "all different"),
        ({"widths": [0.05, 0.3]}, r"widths is \[0\.05, 0\.3\]; allowed: .* up to 0\.28"),
        ({"widths": [0.0]}, "above 0"),
        ({"width": 0.07}, r"width is 0\.07; allowed: one of widths, 0\.05, 0\.1, or null"),
    ],
)
def test_refuses_what_is_no_average(options, message):
    with pytest.raises(UserError, match=message):
        PowerEMA(nn.Identity(), **options)
