"""The alignment of hidden features, by an explicit computation of both and of their cosines."""

import pytest
import torch
from diffusion_helpers import normal
from torch import nn

from langevin.diffusion.alignment import Alignment
from langevin.diffusion.auxiliary import WithAuxiliaries
from langevin.diffusion.classifier import CleanClassifier, NoisyClassifier
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.draws import BatchDraws
from langevin.diffusion.objective import Simple
from langevin.diffusion.parameterization import Eps, FlowParameterization
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.time_sampler import UniformTimes
from langevin.diffusion.weighting import UnitFlow
from langevin.digest import digest_of
from langevin.errors import OptionError
from langevin.networks.dit import DiT
from langevin.networks.half_unet import HalfUNet
from langevin.networks.mlp import MLP
from langevin.networks.unet import UNet
from langevin.spec import DataSpec

SPEC = DataSpec.of_images(channels=1, image_size=8, num_classes=10)
IMAGES = {"in_channels": 1, "out_channels": 1, "image_size": 8, "condition": None}
DROPOUT = 0.5


def make_classifier(seed=1, multipliers=(1, 2)):
    torch.manual_seed(seed)
    blocks = {"channels": 32, "channel_multipliers": list(multipliers), "blocks_per_level": 1, "dropout": DROPOUT}
    network = HalfUNet(
        in_channels=1, num_classes=10, image_size=8, attention_resolutions=[], head_channels=None, **blocks
    )
    return CleanClassifier(NoisyClassifier(awake(network), GaussianProcess(Linear(), Eps())))


def awake(network):
    """Nothing that starts at zero is left at it."""
    for weight in network.parameters():
        if not weight.any():
            nn.init.normal_(weight, std=0.1)
    return network


def make_dit(**changes):
    torch.manual_seed(2)
    own = {"patch_size": 2, "width": 32, "depth": 3, "heads": 2, "checkpointing": False}
    return awake(DiT(**IMAGES, **(own | changes)))


def make_unet():
    torch.manual_seed(2)
    own = {"channels": 32, "channel_multipliers": [1, 2], "blocks_per_level": 1, "attention_resolutions": []}
    return awake(UNet(**IMAGES, **own))


def read(classifier):
    loader = {"load_clean_classifier": lambda option, value: (classifier, SPEC, "digits")}
    return Alignment.read({"run": "run"}, loader)


def aligned(network, classifier=None, **options):
    alignment = Alignment(network, read(classifier or make_classifier()), "run", **options)
    denoiser = Denoiser(network, GaussianProcess(FlowSchedule(), FlowParameterization()))
    return WithAuxiliaries(Simple(UniformTimes(), UnitFlow()), {"alignment": alignment}), denoiser


def batch_of(number=3):
    x = normal(number, 1, 8, 8, seed=3, dtype=torch.float32)
    return {"x": x}, BatchDraws(5, x, number)


def by_the_formula(projector, hidden, target):
    """Minus the mean cosine of positions (B, N, C), in float64 and without torch's own."""
    projected = projector.double()(hidden.double())
    products = (projected * target.double()).sum(2)
    lengths = projected.square().sum(2).sqrt() * target.double().square().sum(2).sqrt()
    projector.float()
    return -(products / lengths).mean(1)


def activations(classifier, x):
    """Of each level, in evaluation mode, of alpha x at the time of least noise."""
    network = classifier.classifier.network.eval()
    h = network.first((1 - 1e-4) ** 0.5 * x)
    embedding, found = network.time(torch.zeros(len(x))), []  # the first of the times 0 to 999
    for block in network.down:
        h = block(h, embedding)
        found.append(h)
    return [found[0], found[-1]]


def noised(denoiser, x, draws):
    t, eps = draws.drawn["times"], draws.drawn["noise"]
    wide = t.reshape(-1, 1, 1, 1).float()
    return denoiser.process.present(((1 - wide) * x + wide * eps).float(), t)


def test_of_a_transformer_it_is_minus_the_cosine_of_each_patch():
    network, classifier = make_dit(), make_classifier()
    objective, denoiser = aligned(network, classifier, tap="block_2", width=16)
    batch, draws = batch_of()
    found = objective(denoiser, batch, draws)
    x_t, c_noise = noised(denoiser, batch["x"], draws)
    shallow = make_dit(depth=2)
    shallow.load_state_dict({name: value for name, value in network.state_dict().items() if "blocks.2." not in name})
    after = []
    shallow.norm.register_forward_hook(lambda module, inputs, output: after.append(inputs[0]))  # what ends the blocks
    shallow(x_t, c_noise)
    target = activations(classifier, batch["x"])[-1].flatten(2).mT  # 4 x 4, as are the patches
    expected = by_the_formula(objective.auxiliaries["alignment"].projector, after[0], target)
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(found["alignment"].double(), expected, rtol=1e-4, atol=1e-6)
    # And it counts one half in the loss.
    own = Simple(UniformTimes(), UnitFlow())(denoiser, *batch_of())
    torch.testing.assert_close(found["loss"], own["loss"] + 0.5 * found["alignment"])
    assert torch.equal(found["mse"], own["mse"])


@pytest.mark.parametrize(
    ("tap", "level", "multipliers"),
    [("middle", -1, (1, 2)), ("middle", 0, (1, 2)), ("down_1", -1, (1, 2)), ("middle", -1, (1, 1, 1, 1))],
    ids=["equal", "finer classifier", "finer network", "one position"],
)
def test_of_maps_of_two_sizes_the_finer_is_averaged(tap, level, multipliers):
    network, classifier = make_unet(), make_classifier(multipliers=multipliers)
    objective, denoiser = aligned(network, classifier, tap=tap, level=level, width=16)
    batch, draws = batch_of()
    found = objective(denoiser, batch, draws)["alignment"]
    x_t, c_noise = noised(denoiser, batch["x"], draws)
    seen = network.encode(x_t, network.embed(c_noise, None), None, None)  # stem, steps down, middle
    hidden, target = seen[-1 if tap == "middle" else 1], activations(classifier, batch["x"])[level]

    def halved(features):
        """Means of squares of four."""
        return features.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))

    while hidden.shape[2] > target.shape[2]:
        hidden = halved(hidden)
    while target.shape[2] > hidden.shape[2]:
        target = halved(target)
    projector = objective.auxiliaries["alignment"].projector
    expected = by_the_formula(projector, hidden.flatten(2).mT, target.flatten(2).mT)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_gradient_reaches_network_and_projector_and_not_the_classifier(checkpointing):
    network = make_dit(checkpointing=checkpointing)
    objective, denoiser = aligned(network, tap="block_2", weight=2.0)
    alignment = objective.auxiliaries["alignment"]
    gradients = []
    for aligns in (True, False):
        batch, draws = batch_of()
        terms = (objective if aligns else objective.objective)(denoiser, batch, draws)
        network.zero_grad()
        terms["loss"].mean().backward()
        gradients.append({name: weight.grad.clone() for name, weight in network.named_parameters()})
    differ = {name for name, gradient in gradients[0].items() if not torch.equal(gradient, gradients[1][name])}
    assert {"patches.weight", "blocks.0.qkv.weight", "blocks.1.mlp.2.weight"} <= differ
    assert not {name for name in differ if name.startswith(("blocks.2.", "modulation.", "last."))}
    assert all(weight.grad.abs().max() > 0 for weight in alignment.projector.parameters())
    assert not any(weight.requires_grad or weight.grad is not None for weight in alignment.frozen_encoder.parameters())
    roles = {role: list(weights) for role, weights in objective.parameters_by_role(denoiser).items()}
    assert list(map(len, roles.values())) == [len(list(network.parameters())), 6]
    assert roles["auxiliaries"] == list(alignment.projector.parameters())


def test_the_classifier_stays_in_evaluation_mode_and_is_not_saved():
    """With dropout the terms would differ; what is saved fits another one that has a classifier of its own."""
    objective, denoiser = aligned(make_unet())
    objective.train()
    terms = [objective(denoiser, *batch_of())["alignment"] for _ in range(2)]
    assert torch.equal(*terms)
    state = objective.state_dict()
    assert set(state) == {f"auxiliaries.alignment.projector.{i}.{kind}" for i in "024" for kind in ("weight", "bias")}
    other, _ = aligned(make_unet(), make_classifier(seed=8))
    before = digest_of(other.auxiliaries["alignment"].frozen_encoder)
    assert other.load_state_dict(state).missing_keys == []
    assert digest_of(other.auxiliaries["alignment"].frozen_encoder) == before
    assert not torch.equal(other(denoiser, *batch_of())["alignment"], terms[0])
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({name: value for name, value in state.items() if "0.bias" not in name})


def test_it_falls_in_training():
    objective, denoiser = aligned(make_dit(), width=32)
    weights = [weight for own in objective.parameters_by_role(denoiser).values() for weight in own]
    optimizer, found = torch.optim.Adam(weights, lr=3e-3), []
    for _ in range(40):
        terms = objective(denoiser, *batch_of())
        optimizer.zero_grad()
        terms["loss"].mean().backward()
        optimizer.step()
        found.append(terms["alignment"].mean().item())
    assert -1 <= found[-1] < -0.5 < -0.1 < found[0]


@pytest.mark.parametrize(
    ("make", "options", "field", "message"),
    [
        (make_unet, {"tap": "block_1"}, "tap", "is block_1; allowed with this UNet: null or one of down_1, down_2,"),
        (make_dit, {"tap": "block_4"}, "tap", "is block_4; allowed with this DiT: null or one of block_1, block_2, bl"),
        (
            lambda: MLP(in_channels=2, out_channels=2, condition=None, width=8, depth=1, time_channels=8, dropout=0.0),
            {},
            "tap",
            "is null, and MLP has no taps; allowed: null with a network that has some",
        ),
        (make_unet, {"level": 2}, "level", "is 2; allowed: -2 to 1, of the 2 levels of the classifier"),
        (make_unet, {"level": -3}, "level", "is -3; allowed: -2 to 1"),
        (make_unet, {"weights": "0" * 64}, "weights", "is 00000000, and what was read has"),
    ],
)
def test_what_does_not_exist_is_refused(make, options, field, message):
    with pytest.raises(OptionError) as raised:
        aligned(make(), **options)
    ((found, text),) = raised.value.found
    assert (found, text[: len(message)]) == (field, message)


def test_other_images_and_latents_are_refused():
    alignment = aligned(make_unet())[0].auxiliaries["alignment"]
    alignment.check(SPEC)
    for spec, why in (
        (DataSpec.of_images(3, 8, 10), "these are of (3, 8, 8)"),
        (DataSpec((1, 8, 8), 10, SPEC.modality), "what is diffused is no image"),
    ):
        with pytest.raises(OptionError) as raised:
            alignment.check(spec)
        assert why in str(raised.value)
        assert raised.value.found[0][0] == "run"


def test_its_own_weights_are_those_of_its_run():
    classifier = make_classifier()
    aligned(make_unet(), classifier, weights=digest_of(classifier.classifier.network))


def test_by_default_it_looks_where_the_network_says():
    for network, name, channels in (
        (make_unet(), "middle", 64),
        (make_dit(), "block_3", 32),
        (make_dit(depth=9), "block_8", 32),
    ):
        alignment = aligned(network)[0].auxiliaries["alignment"]
        assert (alignment.tap, alignment.projector[0].in_features) == (name, channels)
