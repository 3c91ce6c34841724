"""Conditions that enter a U-Net as tokens, to which its attentions attend."""

from functools import partial

import pytest
import torch
from helpers.commands import TINY as TINY_RUN
from helpers.commands import composed
from network_helpers import Sequence, labelled, randomize, tiny
from torch import nn

from langevin.assembly.check import mistakes_in
from langevin.assembly.components import make_model
from langevin.conditions.class_label import ClassLabel
from langevin.conditions.condition import Several
from langevin.conditions.vector import Vector
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.parameterization import Eps
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.variance import FixedSmall
from langevin.errors import OptionError
from langevin.guidance.classifier_free import ClassifierFree
from langevin.guidance.guidance import Guided
from langevin.networks.blocks.attention import SelfAttention
from langevin.networks.blocks.residual import ResidualBlock
from langevin.networks.blocks.transformer import SpatialTransformer
from langevin.spec import DataSpec

TIMES = torch.tensor([0.0, 1.0, 20.0, 999.0])
LABELS = {"label": torch.tensor([3, 0, 9, -1])}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = noise(4, 2, 8, 8)


def attending(condition=None, **changes):
    network = tiny(cross_attention=True, condition=condition or labelled(), **changes)
    randomize(network)
    return network.eval()


def attentions(network):
    return [module for module in network.modules() if isinstance(module, SelfAttention)]


def several(dim, dropout=0.0):
    label = ClassLabel(num_classes=10, dropout=dropout, dim=dim)
    return Several({"label": label, "vector": Vector(size=3, dropout=dropout, dim=dim)})


@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize("heads", [1, 4])
def test_attention_equals_torchs_over_pixels_and_tokens(heads, length):
    """Torch's has one linear map for all keys: it gets pixels and tokens in channels, and ones for biases, apart."""
    ours = SelfAttention(32, heads, token_channels=6).double()
    randomize(ours)
    x, tokens = noise(2, 32, 3, 5).double(), noise(2, length, 6, seed=1).double()

    pixels = ours.norm(x).flatten(2).transpose(1, 2)
    seen = [torch.cat((rows, torch.ones_like(rows[..., :1])), dim=2) for rows in (pixels, tokens)]
    context = torch.cat((nn.functional.pad(seen[0], (0, 7)), nn.functional.pad(seen[1], (33, 0))), dim=1)
    theirs = nn.MultiheadAttention(32, heads, kdim=40, vdim=40, batch_first=True, dtype=torch.float64)
    weights = [torch.cat((layer.weight, layer.bias[:, None]), dim=1) for layer in (ours.qkv, ours.kv)]
    (query, *own), conditional = weights[0].chunk(3), weights[1].chunk(2)
    with torch.no_grad():
        theirs.q_proj_weight.copy_(query[:, :-1])
        theirs.in_proj_bias.copy_(nn.functional.pad(query[:, -1], (0, 64)))
        theirs.k_proj_weight.copy_(torch.cat((own[0], conditional[0]), dim=1))
        theirs.v_proj_weight.copy_(torch.cat((own[1], conditional[1]), dim=1))
        theirs.out_proj.load_state_dict(ours.project.state_dict())
    expected = x + theirs(pixels, context, context)[0].transpose(1, 2).unflatten(2, (3, 5))
    torch.testing.assert_close(ours(x, torch.empty(0), tokens), expected, rtol=0, atol=1e-10)
    assert (expected - x).std() > 0.1


def test_without_it_nothing_is_there():
    plain, with_tokens = tiny(condition=labelled()), attending()
    added = with_tokens.state_dict().keys() - plain.state_dict().keys()
    assert all(".kv." in name for name in added)
    assert len(added) == 2 * len(attentions(with_tokens)) == 8
    assert plain.state_dict().keys() < with_tokens.state_dict().keys()


def test_starts_with_the_variance_of_ddpm_and_as_the_identity():
    network = tiny(channels=64, cross_attention=True, condition=labelled())
    for attention in attentions(network):
        for weight in attention.kv.weight.chunk(2):
            assert weight.var().item() == pytest.approx(2 / sum(weight.shape), rel=0.05)
        assert not attention.kv.bias.any()
    assert not network(X, TIMES, LABELS).any()


def test_the_middle_attends_in_any_case():
    network = attending(attention_resolutions=[])
    assert len(attentions(network)) == 1
    other = {"label": torch.tensor([4, 1, 8, 0])}
    assert (network(X, TIMES, LABELS) - network(X, TIMES, other)).flatten(1).abs().amax(dim=1).min() > 1e-3


def test_a_condition_enters_through_the_attention_alone():
    network = attending()
    conditional = []
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            module.register_forward_hook(lambda module, inputs, output: conditional.append(inputs[1]))
    other = {"label": torch.tensor([4, 1, 8, 0])}
    assert (network(X, TIMES, LABELS) - network(X, TIMES, other)).flatten(1).abs().amax(dim=1).min() > 1e-3
    assert len(conditional) == 2 * 8
    assert all(torch.equal(embedding, network.time(TIMES)) for embedding in conditional)
    for attention in attentions(network):
        nn.init.zeros_(attention.kv.weight)
    assert torch.equal(network(X, TIMES, LABELS), network(X, TIMES, other))


def test_a_label_reaches_its_own_sample_only():
    network = attending()
    before, after = (network(X, TIMES, {"label": torch.tensor([3, 0, label, -1])}) for label in (9, 5))
    assert (before != after).flatten(1).any(dim=1).tolist() == [False, False, True, False]


class TestTokens:
    vectors = noise(4, 3)

    def test_of_an_embedding_is_one(self):
        condition = ClassLabel(num_classes=10, dropout=0.0, dim=16)
        vector, tokens, concat, _, _ = condition(LABELS, 4).attended()
        assert torch.equal(tokens, condition(LABELS, 4).vector[:, None])
        assert vector is concat is None
        assert torch.equal(condition(None, 4).attended().tokens, condition.table.weight[10].expand(4, 1, 16))

    def test_of_several_embeddings_is_one_which_is_their_sum(self):
        condition = several(16)
        label, vector = condition.parts
        cond = LABELS | {"vector": self.vectors}
        expected = (label(cond, 4).vector + vector(cond, 4).vector)[:, None]
        assert torch.equal(condition(cond, 4).attended().tokens, expected)

    def test_of_a_sequence_are_its_own_and_a_vector_beside_it_stays_one(self):
        condition = Several({"both": several(16), "text": Sequence(16)})
        both, _ = condition.parts
        cond = LABELS | {"vector": self.vectors, "text": noise(4, 5, 16)}
        vector, tokens, _, _, _ = condition(cond, 4).attended()
        assert torch.equal(tokens, cond["text"])
        assert torch.equal(vector, both(cond, 4).vector)
        assert torch.equal(condition(None, 4).attended().tokens, torch.zeros(4, 1, 16))

    def test_of_several_each_matters(self):
        cond = LABELS | {"vector": self.vectors, "text": noise(4, 5, 128)}
        for condition in (several, lambda dim: Several({"both": several(dim), "text": Sequence(dim)})):
            network = attending(condition)
            known = network(X, TIMES, cond)
            others = {
                "label": torch.tensor([4, 1, 8, 0]),
                "vector": noise(4, 3, seed=1),
                "text": noise(4, 5, 128, seed=1),
            }
            for name in network.condition.inputs:
                other = network(X, TIMES, cond | {name: others[name]})
                assert (other - known).flatten(1).abs().amax(dim=1).min() > 1e-3


def test_dropped_labels_are_the_null_class():
    network = attending(labelled(dropout=1.0)).train()
    assert torch.equal(network(X, TIMES, network.drop(LABELS, lambda: torch.rand(4))), network(X, TIMES))
    assert not torch.equal(network(X, TIMES, LABELS), network(X, TIMES))


@pytest.mark.parametrize(
    ("condition", "cond"),
    [
        (labelled(), LABELS),
        (several, LABELS | {"vector": noise(4, 3)}),
        (Sequence, {"text": noise(4, 5, 128)}),
    ],
    ids=["label", "several", "sequence"],
)
def test_guidance(condition, cond):
    """Both halves are one batch; a scale of 1 is the model itself, of 0 the unconditional model."""
    network = attending(condition).double()
    cond = {name: value if name == "label" else value.double() for name, value in cond.items()}
    model = Denoiser(network, GaussianProcess(Linear(), Eps(), FixedSmall()))
    x, t = X.double(), torch.tensor([1.0, 20.0, 500.0, 1000.0], dtype=torch.float64)
    conditional, unconditional = model(x, t, cond), model(x, t, network.null_condition(cond))
    assert (conditional.eps - unconditional.eps).abs().max() > 1e-3
    assert torch.equal(Guided(model, ClassifierFree(1.0))(x, t, cond).eps, conditional.eps)
    for scale in (0.0, 3.0):
        guided = Guided(model, ClassifierFree(scale))(x, t, cond).eps
        expected = unconditional.eps + scale * (conditional.eps - unconditional.eps)
        torch.testing.assert_close(guided, expected, rtol=0, atol=1e-10)
    if condition is not Sequence:
        assert torch.equal(unconditional.eps, model(x, t, None).eps)


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("condition", [labelled(), partial(several, dropout=0.5)], ids=["label", "several"])
def test_every_parameter_learns(condition, autocast):
    network = attending(condition, attention_resolutions=[8, 4], head_channels=16, skip_rescale=True).train()
    cond = LABELS | {"vector": noise(4, 3).index_fill(0, torch.tensor([1]), float("nan"))}
    expected = network.eval()(X, TIMES, cond)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        output = network(X, TIMES, cond)
        torch.manual_seed(1)
        loss = network.train()(X, TIMES, cond).float().square().mean()
    if autocast:
        assert output.dtype == torch.bfloat16
        torch.testing.assert_close(output.float(), expected, rtol=0.1, atol=0.1 * expected.std().item())
    loss.backward()
    for name, parameter in network.named_parameters():
        assert 0 < parameter.grad.norm() < float("inf"), name


def test_memory_format_stays_inside():
    network = attending()
    inner = []
    network.middle.register_forward_hook(lambda module, inputs, output: inner.append(output))
    output = network(X, TIMES, LABELS)
    assert inner[0].is_contiguous(memory_format=torch.channels_last)
    assert output.is_contiguous()
    assert torch.equal(output, network(X.to(memory_format=torch.channels_last), TIMES, LABELS))


def test_checkpointing_changes_memory_and_nothing_else():
    kept, results = [], []
    for checkpointing in (False, True):
        network = attending(partial(several, dropout=0.5), checkpointing=checkpointing, dropout=0.3).train()
        count = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, count=count: count.append(t.numel()) or t, lambda t: t):
            torch.manual_seed(0)
            output = network(X, TIMES, LABELS | {"vector": noise(4, 3)})
        kept.append(sum(count))
        output.square().mean().backward()
        results.append([output.detach(), *(parameter.grad for parameter in network.parameters())])
    assert kept[1] < 0.5 * kept[0]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results, strict=True))


class TestTransformer:
    def test_starts_as_the_identity_and_learns(self):
        network = tiny(condition=labelled(), cross_attention=True, transformer_depth=2, heads=2)
        transformers = [module for module in network.modules() if isinstance(module, SpatialTransformer)]
        assert len(transformers) == 4
        x, tokens = noise(2, 64, 4, 4), noise(2, 5, 128)
        assert all(torch.equal(each(x, None, tokens), x) for each in transformers if each.norm.num_channels == 64)
        randomize(network)
        network(X, TIMES, LABELS).square().mean().backward()
        for name, parameter in network.named_parameters():
            # The softmax over one token is 1, whatever the queries, keys and the normalization before them.
            if not name.startswith("norm2") and ".cross.query" not in name and ".norm2." not in name:
                assert parameter.grad.norm() > 0, name

    def test_needs_tokens(self):
        with pytest.raises(OptionError, match=r"^transformer_depth is 1 without cross_attention; allowed: 0, or"):
            tiny(condition=labelled(), transformer_depth=1)


def test_without_a_condition_it_is_refused():
    with pytest.raises(OptionError) as error:
        tiny(cross_attention=True)
    ((field, message),) = error.value.found
    assert field == "cross_attention"
    assert "conditions=[class_label]" in message


def test_beside_a_mapped_condition_it_is_refused():
    with pytest.raises(OptionError, match=r"^cross_attention is true beside map_condition; allowed: one of them"):
        attending(map_condition=True)


def test_is_chosen_in_a_config():
    cfg, _ = composed("train", *TINY_RUN, "conditions=[class_label]", "model.cross_attention=true")
    assert mistakes_in(cfg) == []
    network = make_model(cfg, DataSpec.of_images(channels=1, image_size=8, num_classes=10)).network
    assert network.condition.table.weight.shape == (11, 128)
    assert {attention.kv.in_features for attention in attentions(network)} == {128}


def test_tokens_that_no_network_sees_are_reported_before_training():
    choices = ["conditions=[class_label]", "+conditions.text._target_=networks.network_helpers.Sequence"]
    cfg, _ = composed("train", *TINY_RUN, *choices, "trust=[networks]")
    mistakes = mistakes_in(cfg)
    assert ("conditions", "give tokens alone, to which UNet does not attend") in [
        (path, text.partition(";")[0]) for path, text in mistakes
    ], mistakes


def test_its_mistake_in_a_config_has_its_path():
    cfg, _ = composed("train", "model=ddpmpp", "conditions=[class_label]", "model.cross_attention=true")
    assert ("model.cross_attention", "is true beside map_condition; allowed: one of them, the other false") in [
        tuple(mistake) for mistake in mistakes_in(cfg)
    ]
