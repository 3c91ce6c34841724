"""DINOv2's patch tokens as maps: each of its own patch of the resized image, by products of matrices in float64."""

import numpy as np
import pytest
import torch
from helpers.dinov2 import offline_hub, save_dinov2

from langevin.errors import OptionError
from langevin.features.dinov2 import DINOv2
from langevin.features.dinov2_patches import grid_of, load_patches


@pytest.fixture
def hub(tmp_path):
    with offline_hub(tmp_path / "hub") as place:
        yield place


def bicubic(before, after):
    """The matrix that resizes a row of pixels: Keys' kernel with a = -3/4, pixels at their centres, ends repeated."""
    matrix = np.zeros((after, before))
    for row in range(after):
        centre = (row + 0.5) * before / after - 0.5
        for column in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            far = abs(centre - column)
            near = 1.25 * far**3 - 2.25 * far**2 + 1
            weight = near if far <= 1 else -0.75 * (far**3 - 5 * far**2 + 8 * far - 4)
            matrix[row, min(max(column, 0), before - 1)] += weight
    return matrix


@pytest.mark.parametrize(("shape", "grid"), [((3, 256, 256), (16, 16)), ((3, 32, 48), (16, 24)), ((1, 8, 8), (16, 16))])
def test_a_map_has_the_token_of_each_patch_where_that_lies(hub, shape, grid):
    state = save_dinov2(hub)
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = load_patches("model", "dinov2-vit-s-14")(x)
    assert found.shape == (2, 6, *grid)
    weight, bias = (state[f"patches.{name}"].double().numpy() for name in ("weight", "bias"))
    mean, deviation = (np.array(of)[:, None, None] for of in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    for image, maps in zip(x.double().numpy(), found.detach().numpy(), strict=True):
        pixels = ((image + 1) / 2 - mean) / deviation
        pixels = bicubic(shape[1], 14 * grid[0]) @ pixels @ bicubic(shape[2], 14 * grid[1]).T
        for row in range(grid[0]):
            for column in range(grid[1]):
                patch = pixels[:, 14 * row : 14 * row + 14, 14 * column : 14 * column + 14]
                np.testing.assert_allclose(maps[:, row, column], (weight * patch).sum((1, 2, 3)) + bias, atol=1e-4)
    assert found.std((2, 3)).min() > 0.01


def test_256_pixels_become_16_patches_and_512_become_32():
    """As in REPA; what is smaller is enlarged."""
    assert [grid_of(side, side) for side in (8, 64, 256, 512)] == [(16, 16), (16, 16), (16, 16), (32, 32)]
    assert (grid_of(512, 256), grid_of(48, 64)) == ((32, 16), (16, 21))


def test_the_network_is_that_of_the_metrics(hub):
    """To its digest, by which runs and measurements name it."""
    save_dinov2(hub)
    extractor, patches = DINOv2("dinov2-vit-b-14"), load_patches("model", "dinov2-vit-b-14")
    extractor.prepare()
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    means = patches(images / 127.5 - 1).mean((2, 3))
    torch.testing.assert_close(extractor(images)["features"], means, rtol=1e-4, atol=1e-5)
    assert (patches.channels, extractor.sizes) == (6, {"features": 6})


def test_what_torch_hub_does_not_give_is_one_message_that_names_the_option(hub):
    with pytest.raises(OptionError) as raised:
        load_patches("model", "dinov2-vit-l-14")
    ((field, text),) = raised.value.found
    assert field == "model"
    assert text.startswith("is dinov2-vit-l-14, which torch hub does not give (")
    with pytest.raises(OptionError, match=r"^model is vit; allowed: one of dinov2-vit-s-14, dinov2-vit-b-14"):
        load_patches("model", "vit")


def test_other_code_that_gives_no_patch_tokens_is_too(hub):
    save_dinov2(hub)
    code = hub / "facebookresearch_dinov2_main" / "hubconf.py"
    code.write_text(code.read_text().replace("x_norm_patchtokens", "patches"))
    with pytest.raises(OptionError) as raised:
        load_patches("model", "dinov2-vit-b-14")
    ((field, text),) = raised.value.found
    assert field == "model"
    assert text.startswith("is dinov2-vit-b-14, whose code does not give patch tokens as DINOv2's does (KeyError: 'x_n")
    assert text.endswith(f"allowed: with a copy of https://github.com/facebookresearch/dinov2 at {code.parent}")
