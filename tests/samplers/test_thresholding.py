import pytest
import torch
from diffusers import DDPMScheduler

from langevin.samplers.thresholding import Dynamic, Static


def images(batch=5, scale=1.5):
    generator = torch.Generator().manual_seed(0)
    sizes = torch.linspace(0.1, 2, batch, dtype=torch.float64).reshape(-1, 1, 1, 1)
    return scale * sizes * torch.randn(batch, 3, 6, 5, generator=generator, dtype=torch.float64)


def test_static_clamps():
    x = torch.tensor([[-3.0, -1.0, -0.2], [0.0, 1.0, 1.0001]])
    assert Static()(x).tolist() == [[-1.0, -1.0, torch.tensor(-0.2).item()], [0.0, 1.0, 1.0]]


@pytest.mark.parametrize("percentile", [0.5, 0.9, 0.995, 1.0])
@pytest.mark.parametrize("limit", [None, 1.0, 1.7])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_dynamic_is_diffusers(percentile, limit, dtype):
    scheduler = DDPMScheduler(
        thresholding=True,
        dynamic_thresholding_ratio=percentile,
        sample_max_value=float("inf") if limit is None else limit,
    )
    x = images().to(dtype)
    ours = Dynamic(percentile, limit)(x)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, scheduler._threshold_sample(x), rtol=0, atol=1e-15)


def test_dynamic_by_hand():
    x = torch.tensor([0.0, 0.5, -4.0, 2.0, 1.0], dtype=torch.float64).reshape(1, 1, 1, 5)
    # The sizes are 0, 0.5, 1, 2, 4, so the 75th percentile is 2.
    assert Dynamic(0.75)(x).flatten().tolist() == [0.0, 0.25, -1.0, 1.0, 0.5]
    assert Dynamic(0.75, limit=1.6)(x).flatten().tolist() == pytest.approx([0.0, 0.3125, -1.0, 1.0, 0.625])


def test_dynamic_leaves_images_in_range_as_they_are():
    x = images(scale=0.1)
    assert x.abs().max() < 1
    assert torch.equal(Dynamic()(x), x)


@pytest.mark.parametrize("thresholding", [Static(), Dynamic(), Dynamic(0.8, 2.0)])
def test_each_image_by_itself(thresholding):
    x = images()
    together = thresholding(x)
    assert together.abs().max() <= 1
    for i in range(len(x)):
        assert torch.equal(thresholding(x[i : i + 1])[0], together[i])
