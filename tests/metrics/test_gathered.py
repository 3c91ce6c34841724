import numpy as np
import pytest
import torch

from langevin.metrics import gathered
from langevin.metrics.gathered import Moments, Rows, gaussian_of

D = 6


def draw(count, seed=0, shift=0.0):
    mixing = torch.randn(D, D, generator=torch.Generator().manual_seed(99))
    return torch.randn(count, D, generator=torch.Generator().manual_seed(seed)) @ mixing + shift


def assert_fitted(gaussian, rows):
    rows = rows.double().numpy()
    assert gaussian.number == len(rows)
    np.testing.assert_allclose(gaussian.mean.numpy(), rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(gaussian.covariance.numpy(), np.cov(rows.T), rtol=1e-9, atol=1e-12)


@pytest.fixture(params=[1, 3, 64, 1024])
def block(request, monkeypatch):
    monkeypatch.setattr(gathered, "ROWS", request.param)
    return request.param


@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("count", [2, 5, 150])
def test_moments_are_numpys(count, batch, block):
    rows = draw(count, shift=3.0)
    moments = Moments(D)
    for part in rows.split(batch):
        moments.update(part)
        assert sum(map(len, moments.recent)) < block
    for _ in range(2):  # computing changes nothing
        assert_fitted(moments.compute(), rows)


def test_moments_go_on_after_compute_and_begin_anew_after_reset(block):
    rows = draw(90)
    moments = Moments(D)
    moments.update(rows[:40])
    moments.compute()
    moments.update(rows[40:])
    assert_fitted(moments.compute(), rows)
    moments.reset()
    moments.update(rows[:33])
    assert_fitted(moments.compute(), rows[:33])


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("count", [2, 5, 150])
def test_gaussian_of_rows_is_numpys(count):
    assert_fitted(gaussian_of(draw(count, shift=3.0)), draw(count, shift=3.0))


def test_gaussian_of_rows_keeps_what_is_small_beside_the_mean():
    rows = 1e4 + 1e-2 * draw(50).double()
    np.testing.assert_allclose(gaussian_of(rows).covariance.numpy(), np.cov(rows.numpy().T), rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.int64])
def test_rows_come_back_in_the_images_order(dtype):
    whole = torch.randint(0, 200, (50, 2, 3), generator=torch.Generator().manual_seed(0)).to(dtype)
    rows = Rows(2, 3, dtype=dtype)
    for part in torch.randperm(50, generator=torch.Generator().manual_seed(1)).split(7):
        rows.update(whole[part], part)
    assert rows.compute().dtype == dtype
    assert torch.equal(rows.compute(), whole)
    rows.reset()
    rows.update(whole[:4], torch.arange(4))
    assert torch.equal(rows.compute(), whole[:4])


def test_rows_may_be_numbers():
    rows = Rows(dtype=torch.int64)
    rows.update(torch.tensor([7, 5, 6]), torch.tensor([2, 0, 1]))
    assert rows.compute().tolist() == [5, 6, 7]


@pytest.mark.parametrize("index", [[0, 1, 1], [0, 2, 2], [0, 1, 3], [1, 2, 3]])
def test_missing_and_doubled_rows_are_noticed(index):
    rows = Rows(D)
    rows.update(draw(3), torch.tensor(index))
    with pytest.raises(RuntimeError, match="some images were counted in twice, and others not at all"):
        rows.compute()
