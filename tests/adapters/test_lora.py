"""Low-rank changes: none at the start, those of peft itself with the same factors, and the same once merged."""

import copy
from importlib.util import find_spec

import pytest
import torch
from helpers.commands import composed
from torch import nn

from langevin.adapters.lora import LoRA
from langevin.assembly.components import make_model
from langevin.errors import OptionError, UserError
from langevin.spec import DataSpec
from langevin.text.encoder import Encoded, TextEncoder

needs_peft = pytest.mark.skipif(find_spec("peft") is None, reason="pip install 'langevin-diffusion[lora]'")
SPEC = DataSpec.of_images(channels=1, image_size=8, num_classes=10)
UNET = ("model=unet_small", "model.channels=32", "model.channel_multipliers=[1,2]", "conditions=[class_label]")
DIT = ("model=dit_s", "model.width=16", "model.depth=1", "model.heads=2", "model.patch_size=2")
TRANSFORMER = ("model.cross_attention=true", "model.transformer_depth=1")
OPTIONS = {"rank": 3, "alpha": 6.0, "dropout": 0.0, "targets": "attention", "text_encoder": False}


def lora(**options):
    return LoRA(**{**OPTIONS, **options})


def network(*overrides):
    """A network in evaluation, in double precision, without any weight that is zero."""
    torch.manual_seed(0)
    made = make_model(composed("train", *overrides)[0], SPEC).network
    for weight in made.parameters():
        if not weight.any():
            nn.init.normal_(weight, std=0.1)
    return made.eval().double()


def output(made):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 1, 8, 8, generator=generator).double()
    with torch.no_grad():
        return made(x, torch.tensor([0.2, 0.7]).double(), {"label": torch.tensor([3, -1])})


def randomize(made):
    """Give the trained weights random values, as training would."""
    for weight in made.parameters():
        if weight.requires_grad:
            nn.init.normal_(weight, std=0.3)


@needs_peft
@pytest.mark.slow  # importing it takes seconds
@pytest.mark.parametrize(
    ("overrides", "targets", "exact"),
    [
        (UNET, "attention", True),
        (UNET, "all", False),  # a convolution behind nearest neighbours is another sum on a CPU
        ((*UNET, *TRANSFORMER), "attention", True),
        (DIT, "all", True),
    ],
)
def test_it_starts_as_the_frozen_network_and_is_the_same_once_merged(overrides, targets, exact):
    base = network(*overrides)
    made, adapter = copy.deepcopy(base), lora(targets=targets)
    layers = adapter.layers(made)
    adapter.inject(made)
    trained = [name for name, weight in made.named_parameters() if weight.requires_grad]
    assert sorted({name.partition(".lora_")[0] for name in trained}) == sorted(layers)
    assert len(trained) == 2 * len(layers)
    torch.testing.assert_close(output(made), output(base), rtol=0, atol=0 if exact else 1e-12)

    randomize(made)
    changed, merged = output(made), copy.deepcopy(base)
    merged.load_state_dict(adapter.merged(made.state_dict()))
    assert (changed - output(base)).abs().max() > 1e-2
    torch.testing.assert_close(output(merged), changed, rtol=0, atol=1e-9)


@needs_peft
@pytest.mark.slow  # importing it takes seconds
@pytest.mark.parametrize("targets", ["attention", "all"])
def test_it_is_that_of_peft(targets):
    """The same factors in a `PeftModel`, whose own merging gives the weights that ours gives."""
    from peft import LoraConfig, get_peft_model

    base, adapter = network(*UNET), lora(targets=targets)
    kinds = nn.Linear if targets == "attention" else nn.Linear | nn.Conv2d
    chosen = [name for name, layer in base.named_modules() if isinstance(layer, kinds)]
    if targets == "attention":
        chosen = [name for name in chosen if name.endswith(("qkv", "project"))]
    theirs = get_peft_model(copy.deepcopy(base), LoraConfig(r=3, lora_alpha=6, target_modules=chosen)).double()
    own = copy.deepcopy(base)
    adapter.inject(own)
    own.double()
    randomize(own)
    theirs.base_model.model.load_state_dict(own.state_dict())
    assert torch.equal(output(own), output(theirs))
    merged = theirs.merge_and_unload().state_dict()
    ours = adapter.merged(own.state_dict())
    assert ours.keys() == merged.keys() == base.state_dict().keys()
    for name, weight in merged.items():
        torch.testing.assert_close(ours[name], weight, rtol=0, atol=1e-12)


def factors(rows, columns, rank=3, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "layer.base_layer.weight": (rows, columns),
        "layer.lora_A.default.weight": (rank, columns),
        "layer.lora_B.default.weight": (rows, rank),
    }
    return {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in shapes.items()}


def test_merging_is_in_closed_form_and_needs_no_package():
    weights = {**factors(5, 4), "other.bias": torch.ones(2)}
    matrix, down, up, other = weights.values()
    merged = lora().merged(weights)
    assert merged.keys() == {"layer.weight", "other.bias"}
    torch.testing.assert_close(merged["layer.weight"], matrix + 2 * torch.einsum("or,ri->oi", up, down))
    assert torch.equal(merged["other.bias"], other)


@pytest.mark.parametrize(
    "change",
    [
        {"layer.base_layer.weight": torch.zeros(5)},
        {"layer.base_layer.weight": torch.zeros(2, 2)},
        {"layer.lora_A.default.weight": torch.zeros(2, 4)},
        {"layer.lora_B.default.weight": torch.zeros(5, 3, 1, 1)},
    ],
)
def test_factors_that_do_not_fit_their_matrix_are_not_multiplied(change):
    """They may be a stranger's, whose product would be a hundred thousand times as large."""
    merged = lora().merged({**factors(5, 4), **change})
    assert {"layer.lora_A.default.weight", "layer.lora_B.default.weight"} < merged.keys()


class Words(TextEncoder):
    """Has a weight of its own."""

    columns = {"text": ((1,), torch.int64)}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.query = nn.Linear(2, 2)

    def prepare(self, captions, device="cpu"):
        return {"text": torch.zeros(len(captions), 1)}

    def forward(self, columns):
        return Encoded()


def test_layers_of_a_text_encoder_are_changed_where_asked():
    made = nn.ModuleDict({"words": Words(), "attention": nn.ModuleDict({"query": nn.Linear(2, 2)})})
    assert lora().layers(made) == ["attention.query"]
    assert lora(text_encoder=True).layers(made) == ["attention.query", "words.query"]
    del made["words"]
    with pytest.raises(OptionError, match="text_encoder is true, but no text encoder is trained with this model"):
        lora(text_encoder=True).layers(made)


def test_layers_are_chosen_by_their_whole_names():
    made = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("key", "monkey", "keyhole")})
    assert lora(targets="key").layers(made) == ["key"]
    assert lora(targets=".*key").layers(made) == ["key", "monkey"]
    for targets, text in (("keys", "which no layer of this network fits; allowed: all, or .* such as key, monkey"),):
        with pytest.raises(OptionError, match=f"targets is '{targets}', {text}"):
            lora(targets=targets).layers(made)
    with pytest.raises(OptionError, match=r"targets is '\(', no regular expression"):
        lora(targets="(")


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("langevin.adapters.lora.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"adapter=lora needs the package peft: .*langevin-diffusion\[lora\]"):
        lora().inject(nn.Linear(1, 1))
