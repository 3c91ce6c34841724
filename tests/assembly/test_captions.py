"""Which networks of text go to diffusers' pipelines."""

import pytest
from helpers.texts import Captioned
from networks.network_helpers import labelled, tiny
from torch import nn

from langevin.assembly.captions import exported_encoder
from langevin.conditions.condition import Several
from langevin.conditions.text import Text
from langevin.errors import UserError
from langevin.text.clip import CLIPTextEncoder


def conditioned(mask=False, **options):
    network = nn.Module()
    encoder = CLIPTextEncoder("nowhere", 12, mask, weights="digest", channels=16)
    network.condition = Text(encoder, 0.1, 8, **options)
    return network


def test_stable_diffusions_conditions_are_exported_and_no_others():
    as_there = {"project": False, "pooled": False}
    network = conditioned(**as_there)
    assert exported_encoder(network) is network.condition.encoder
    assert exported_encoder(tiny(condition=labelled())) is None
    together = nn.Module()
    together.condition = Several({"text": network.condition, "label": labelled()(dim=8)})
    for other, words in (
        (conditioned(mask=True, **as_there), r"text: allowed: clip, with text\.mask=false"),
        (Captioned(), r"text: allowed: clip"),
        (conditioned(), r"conditions\.text: has layers of its own; allowed: conditions\.text\.project=false and"),
        (together, r"conditions: are text beside others; allowed: \[text\] alone"),
    ):
        with pytest.raises(UserError, match=words):
            exported_encoder(other)
