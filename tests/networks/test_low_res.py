"""The small image of a sample: how it is computed, made worse, enlarged and dropped."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from helpers.commands import composed
from scipy.ndimage import correlate1d

from langevin.assembly.check import mistakes_in
from langevin.assembly.components import make_model
from langevin.conditions.class_label import ClassLabel
from langevin.conditions.condition import Several
from langevin.conditions.low_res import LowRes
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.draws import BatchDraws
from langevin.diffusion.parameterization import EDMParameterization
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.errors import UserError
from langevin.networks.network import Network
from langevin.spec import DataSpec

B, C, SIDE, SMALL = 6, 3, 8, 4
FIELDS = {"max_level": 0.5, "blur_probability": 0.5, "dropout": 0.0}
FIELDS |= {"size": SMALL, "in_channels": C, "image_size": SIDE, "dim": 16}


def low_res(augmentation="none", **changes):
    torch.manual_seed(0)
    return LowRes(**(FIELDS | {"augmentation": augmentation} | changes))


def images(n=B):
    """Of whole levels, as data has them."""
    levels = torch.randint(256, (n, C, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
    return levels.float() / 127.5 - 1


def draws(x, seed=3):
    return BatchDraws(seed, x, len(x))


def derived(condition, x, sampling=False):
    return condition.derive(x, draws(x), sampling)


def test_is_the_mean_of_squares_at_whole_levels():
    x = images()
    small = derived(low_res(), x)["low_res"].double()
    exact = x.double().reshape(B, C, SMALL, 2, SMALL, 2).mean((3, 5))
    levels = (small + 1) * 127.5
    assert (levels - levels.round()).abs().max() < 1e-4
    assert (small - exact).abs().max() < 0.501 / 127.5
    assert (small - exact).abs().max() > 0.2 / 127.5, "the means are rounded"


@pytest.mark.parametrize(
    ("augmentation", "changes"), [("noise", {"max_level": 0.0}), ("blur", {"blur_probability": 0.0})]
)
def test_no_augmentation_changes_no_bit(augmentation, changes):
    plain = derived(low_res(), images())["low_res"]
    assert torch.equal(derived(low_res(augmentation, **changes), images())["low_res"], plain)
    strongest = low_res(augmentation, max_level=1.0, blur_probability=1.0)
    assert torch.equal(derived(strongest, images(), sampling=True)["low_res"], plain), "nor when sampling"
    assert not torch.equal(derived(strongest, images())["low_res"], plain)


def test_noise_preserves_variance_and_its_level_is_given():
    x = images(4000)
    columns = derived(low_res("noise"), x)
    s, small = columns["low_res_level"], derived(low_res(), x)["low_res"]
    assert 0 <= s.min() < 0.01
    assert 0.49 < s.max() < 0.5
    assert abs(s.mean() - 0.25) < 4 * 0.5 / math.sqrt(12 * 4000)
    level = s.reshape(-1, 1, 1, 1)
    noise = (columns["low_res"] - torch.sqrt(1 - level**2) * small) / level
    noise = noise[s > 0.05]  # where dividing loses no digits
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01


def test_blur_is_a_gaussian_of_three_pixels_for_half_of_them():
    x = images(200)
    own = draws(x)
    chosen, sigma = own.uniform() < 0.5, 0.4 + 0.2 * own.uniform()
    small = derived(low_res(), x)["low_res"]
    found = derived(low_res("blur"), x)["low_res"]
    assert 70 < chosen.sum() < 130
    assert torch.equal(found[~chosen], small[~chosen])
    for index in chosen.nonzero().flatten().tolist():
        taps = np.exp(-0.5 * (np.arange(-1, 2) / sigma[index].item()) ** 2)
        expected = small[index].double().numpy()
        for axis in (1, 2):
            expected = correlate1d(expected, taps / taps.sum(), axis, mode="nearest")
        assert np.abs(found[index].numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("augmentation", ["none", "noise", "blur"])
def test_a_sample_gets_the_same_on_one_and_two_processes(augmentation):
    x = images()
    whole = derived(low_res(augmentation), x)
    for rank in range(2):
        part = low_res(augmentation).derive(x[rank::2], BatchDraws(3, x[rank::2], len(x), rank, 2))
        for name, column in part.items():
            assert torch.equal(column, whole[name][rank::2])


class Seen(Network):
    """Keeps what it is given."""

    def __init__(self, condition):
        super().__init__()
        self.condition = condition

    def forward(self, x, c_noise, cond=None):
        self.input, self.context = self.conditioned(x, cond)
        return torch.zeros_like(x)


def test_the_enlarged_image_is_beside_x_and_not_scaled_with_it():
    """EDM's c_in divides x_t at sigma = 10 by about 10."""
    network = Seen(low_res())
    denoiser = Denoiser(network, GaussianProcess(EDMSchedule(), EDMParameterization()))
    x_t, cond = 10 * torch.randn(B, C, SIDE, SIDE), derived(low_res(), images())
    denoiser(x_t, torch.tensor(10.0, dtype=torch.float64), cond)
    assert network.input.shape == (B, 2 * C, SIDE, SIDE)
    torch.testing.assert_close(network.input[:, :C], x_t / math.hypot(10, 0.5))
    beside = network.input[:, C:]
    small = cond["low_res"]
    # Bilinear, corners not aligned: 3/4 and 1/4 of neighbours inside, and the pixel itself in a corner.
    torch.testing.assert_close(beside[..., 0, 0], small[..., 0, 0])
    rows = 0.75 * small[..., 1, :] + 0.25 * small[..., 2, :]
    torch.testing.assert_close(beside[..., 3, 3], 0.75 * rows[..., 1] + 0.25 * rows[..., 2])


def test_guidance_keeps_it_unless_it_may_be_dropped():
    x = images()
    label = partial(ClassLabel, num_classes=10, dim=16)
    cond = {"label": torch.arange(B), **derived(low_res("noise"), x)}
    kept = Several({"label": label(dropout=0.1), "low_res": low_res("noise")})
    null = kept.null(cond)
    assert null["label"].eq(-1).all()
    assert torch.equal(null["low_res"], cond["low_res"])
    assert kept.has_dropout, "of the labels, which alone have a null value"
    assert not Several({"label": label(dropout=0.0), "low_res": low_res(dropout=0.1)}).has_dropout
    assert not Several({"low_res": low_res()}).has_dropout
    both = Several({"label": label(dropout=0.1), "low_res": low_res("noise", dropout=0.1)})
    assert both.has_dropout
    null = both.null(cond)
    assert not null["low_res"].any()
    assert torch.equal(null["low_res_level"], cond["low_res_level"])


def test_is_dropped_as_often_as_asked():
    condition, n = low_res(dropout=0.3), 4000
    cond = derived(condition, images(n))
    found = condition.drop(cond, partial(torch.rand, n, generator=torch.Generator().manual_seed(0)))["low_res"]
    dropped = found.flatten(1).eq(0).all(1)
    assert torch.equal(found[~dropped], cond["low_res"][~dropped])
    assert abs(dropped.float().mean() - 0.3) < 0.03


def test_none_and_another_size_are_refused():
    with pytest.raises(UserError, match="low_res: the model enlarges small images, and none were given"):
        low_res()(None, B)
    assert not low_res("noise", dropout=0.1)(None, B).concat.any()
    with pytest.raises(UserError, match=r"low_res: the shape \(6, 3, 8, 8\) does not fit: \(6, 3, 4, 4\)"):
        low_res()({"low_res": images()}, B)


SPEC = DataSpec.of_images(1, 16, 10)
CONDITIONS = ("conditions=[low_res]", "conditions.low_res.size=4", "conditions.low_res.augmentation=noise")
NARROW = {
    "unet_small": ("model.channels=32",),
    "adm_64": ("model.channels=32", "model.head_channels=16"),
    "ncsnpp": ("model.channels=32",),
    "dit_s": ("model.width=32", "model.depth=1", "model.heads=2"),
    "tutorial_unet": (),
}


@pytest.mark.parametrize("name", NARROW)
def test_every_network_of_images_takes_it_and_its_level(name):
    cfg, _ = composed("train", f"model={name}", "data=digits", "data.image_size=16", *NARROW[name], *CONDITIONS)
    assert mistakes_in(cfg) == []
    network = make_model(cfg, SPEC).network.eval()
    for weight in network.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    x, c_noise = torch.randn(2, 1, 16, 16), torch.tensor([5.0, 5.0])
    cond = {"low_res": torch.randn(2, 1, 4, 4), "low_res_level": torch.tensor([0.1, 0.1])}
    before = network(x, c_noise, cond)
    for column in cond:
        other = cond[column].clone()
        other[1] += 0.3
        changed = (network(x, c_noise, {**cond, column: other}) - before).abs().flatten(1).amax(1)
        assert changed[0] < 1e-5 < changed[1], column


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("conditions.low_res.size=3",),
            "conditions.low_res.size: is 3; allowed: a divisor of the images' side 8: 1, 2, 4",
        ),
        (
            ("conditions.low_res.size=8",),
            "conditions.low_res: gives the whole image, of which nothing is left to make; allowed: less",
        ),
        ((), "conditions.low_res.size: must be given"),
        (("data=toy", "model=mlp", "conditions.low_res.size=1"), "conditions.low_res: needs the side of square images"),
        (
            ("conditions.low_res.size=4", "guidance=classifier_free"),
            "guidance: also needs the model without labels, for which it was not trained",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_found_before_data(overrides, message):
    found = [
        f"{path}: {text}" for path, text in mistakes_in(composed("train", "data=digits", CONDITIONS[0], *overrides)[0])
    ]
    assert len(found) == 1
    assert found[0].startswith(message)


def test_guidance_towards_labels_keeps_the_image():
    both = ("conditions=[class_label,low_res]", "conditions.low_res.size=4", "guidance=classifier_free")
    assert mistakes_in(composed("train", "data=digits", "model=unet_small", *both)[0]) == []
