import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from langevin.metrics import neighbours
from langevin.metrics.neighbours import Points


@pytest.fixture(params=[1, 7, 2048], autouse=True)
def block(request, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", request.param)


def draw(count, seed, size=5):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def centre(size=5):
    return torch.zeros(size, dtype=torch.float64)


@pytest.mark.parametrize("k", [1, 3, 30])
def test_nearest_equals_brute_force(k):
    x, y = draw(23, 1), draw(30, 2)
    expected = cdist(x.double(), y.double())
    distances, indices = Points(x, y.mean(0).double()).nearest(Points(y, y.mean(0).double()), k)
    np.testing.assert_allclose(distances.numpy(), np.sort(expected, axis=1)[:, :k], rtol=1e-12)
    assert np.array_equal(indices.numpy(), expected.argsort(1)[:, :k])


def test_images_in_a_read_only_memory_map(tmp_path, recwarn):
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    expected = cdist(images[5:15].reshape(10, -1).astype(float), images.reshape(40, -1).astype(float))
    some = Points(torch.from_numpy(images[5:15]), centre(48))
    distances, indices = some.nearest(Points(mapped, centre(48)), 4)
    np.testing.assert_allclose(distances.numpy(), np.sort(expected, axis=1)[:, :4], rtol=1e-14)
    assert np.array_equal(indices.numpy(), expected.argsort(1)[:, :4])
    assert indices[:, 0].tolist() == list(range(5, 15))
    assert not recwarn


def test_a_copy_is_at_no_distance_however_far_from_the_origin():
    y = 1e6 + draw(40, 3)
    distances, indices = Points(y[10:20], centre()).nearest(Points(y, centre()), 2)
    assert distances[:, 0].tolist() == [0] * 10
    assert indices[:, 0].tolist() == list(range(10, 20))
    assert distances[:, 1].min() > 0.01
