"""What a network is told of an image's size."""

import pytest
import torch

from langevin.conditions.size import ImageSize, whole
from langevin.errors import OptionError, UserError
from langevin.networks.embeddings import sinusoidal_embedding


def condition():
    torch.manual_seed(0)
    made = ImageSize(features=8, image_size=16, dim=12)
    torch.nn.init.normal_(made.last.weight)
    return made


def test_each_number_has_its_own_features():
    made, told = condition(), torch.tensor([[30.0, 120, 0, 14, 12, 20], [16, 16, 0, 0, 16, 16]])
    waves = torch.cat([sinusoidal_embedding(told[:, place], 8) for place in range(6)], 1)
    expected = made.last(torch.nn.functional.silu(made.first(waves)))
    torch.testing.assert_close(made({"size": told}, 2).vector, expected)
    assert (expected[0] - expected[1]).abs().max() > 0.1


def test_what_is_not_told_is_a_whole_square():
    made = condition()
    told = made({"size": whole(16, 16).expand(3, -1)}, 3).vector
    for nothing in (None, {"label": torch.zeros(3)}):
        assert torch.equal(made(nothing, 3).vector, told)


def test_it_starts_without_an_effect_and_guidance_keeps_it():
    made = ImageSize(features=8, image_size=16, dim=12)
    assert not made({"size": whole(12, 20)}, 1).vector.any()
    assert not made.has_null
    assert torch.equal(made.null({"size": whole(12, 20)})["size"], whole(12, 20))


def test_mistakes():
    with pytest.raises(OptionError, match="is 7; allowed: an even number"):
        ImageSize(features=7, image_size=16, dim=12)
    with pytest.raises(UserError, match=r"the shape \(1, 6\) does not fit: \(2, 6\)"):
        condition()({"size": whole(1, 1)}, 2)
