"""Every file in conf/model builds, runs and learns."""

import inspect

import pytest
import torch
from network_helpers import CONF, labelled, preset, randomize, refused

from langevin.networks.network import Network

PRESETS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
SPEC = {"in_channels", "out_channels", "image_size", "condition"}


@pytest.mark.parametrize("name", PRESETS)
def test_lists_its_own_parameters_and_no_fact_of_the_dataset(name):
    cls, own = preset(name)
    assert issubclass(cls, Network)
    assert set(own) == set(inspect.signature(cls).parameters) - SPEC


def narrow(own):
    """The same structure with narrow levels, or fewer equal blocks, where a network has such."""
    if "depth" in own:
        return own | {"depth": 2}
    if "channel_multipliers" not in own:
        return own
    return own | {"channels": 32, "head_channels": own["head_channels"] and 16}


# Has no narrow form; takes a step every day in contracts/test_training_options.py.
FULL_SIZE = "tutorial_unet"


# In bfloat16, every day, a preset of each class.
IN_BFLOAT16 = ("ddpmpp", "dit_s", "edm2_xs", "mlp", "unet_small")


def everyday(name, autocast):
    return name != FULL_SIZE and (name in IN_BFLOAT16 or not autocast)


@pytest.mark.parametrize(
    ("name", "autocast"),
    [
        pytest.param(name, autocast, id=f"{kind}-{name}", marks=[] if everyday(name, autocast) else [pytest.mark.slow])
        for kind, autocast in (("float32", False), ("bfloat16", True))
        for name in PRESETS
    ],
)
def test_every_parameter_learns(name, autocast):
    cls, own = preset(name)
    own = narrow(own)
    facts = {"in_channels": 3, "out_channels": 6, "condition": None}
    side = 0
    if cls.axes:
        side = next(side for side in (16, 32, 64, 128, 256) if not refused(cls, image_size=side, **facts, **own))
        facts["image_size"] = side
    size = (side,) * cls.axes
    network = cls(**facts, **own)
    randomize(network)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        output = network.eval()(torch.randn(1, 3, *size), torch.tensor([500.0]))  # batch norm of one image
    assert output.dtype == (torch.bfloat16 if autocast else torch.float32)
    assert output.shape == (1, 6, *size)
    output.float().square().mean().backward()
    for parameter_name, parameter in network.named_parameters():
        assert 0 < parameter.grad.norm() < float("inf"), parameter_name


COUNTS = {
    # EDM's own SongUNet without labels, counted. The paper says 55.7M of DDPM++.
    "ddpmpp": (32, 3, None, 55_732_739),
    "ncsnpp": (32, 3, None, 56_395_523),
    # DDPM (Ho et al. 2020, appendix B) says 35.7M; diffusers' google/ddpm-cifar10-32 has as many.
    "unet": (32, 3, None, 35_746_307),
    # ADM (Dhariwal & Nichol 2021) says 296M; guided-diffusion's own has 295,904,454; "no label" comes to them.
    "adm_64": (64, 6, 1000, 295_904_454 + 768),
    "unet_large": (64, 6, 1000, 295_904_454 + 768),
    # EDM2's own UNet without labels, counted. Its code's 280M of edm2_s include those, and the learned uncertainty's.
    "edm2_xs": (64, 3, None, 124_198_821),
    "edm2_s": (64, 3, None, 279_441_253),
    # Ours.
    "unet_small": (32, 3, None, 4_636_611),
}


@pytest.mark.parametrize("name", COUNTS)
def test_number_of_parameters(name):
    size, out_channels, classes, expected = COUNTS[name]
    cls, own = preset(name)
    condition = None if classes is None else labelled(classes)
    with torch.device("meta"):
        network = cls(in_channels=3, out_channels=out_channels, image_size=size, condition=condition, **own)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected
