"""What holds of every linear operator, by its dense matrix and numpy's pseudo-inverse."""

import json

import numpy as np
import pytest
import torch
from experiments.exact_gaussian import matrix_of
from operators_helpers import ALL, ALONE, SHAPE

from langevin.config.types import path_of
from langevin.config.validate import options
from langevin.errors import UserError


@pytest.fixture(params=ALL)
def operator(request, tmp_path):
    return ALL[request.param](tmp_path)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def close(found, expected, tolerance):
    assert float((found - expected).norm()) <= tolerance * float(expected.norm())


def test_every_option_of_the_group_is_here():
    assert set(ALONE) == set(options("operators"))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_the_adjoint(operator, dtype, tolerance):
    measured = operator.measured(SHAPE)
    x, y = draw(5, *SHAPE, dtype=dtype), draw(5, *measured, seed=1, dtype=dtype)
    of_x, of_y = operator(x), operator.adjoint(y, SHAPE)
    assert of_x.shape[1:] == measured
    assert of_y.shape[1:] == SHAPE
    assert of_x.dtype == of_y.dtype == dtype
    one, other = (of_x * y).flatten(1).sum(1), (x * of_y).flatten(1).sum(1)
    scale = of_x.flatten(1).norm(dim=1) * y.flatten(1).norm(dim=1)
    assert float(((one - other).abs() / scale).max()) < tolerance


def test_it_is_linear_and_differentiable(operator):
    x, z = draw(2, *SHAPE), draw(2, *SHAPE, seed=1)
    close(operator(2 * x - z), 2 * operator(x) - operator(z), 1e-13)
    y = draw(2, *operator.measured(SHAPE), seed=2)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad((operator(x) * y).sum(), x)
    close(gradient, operator.adjoint(y, SHAPE), 1e-13)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_the_pseudo_inverse_restores_what_was_measured(operator, dtype, tolerance):
    """``A A^+ A = A``, from a measurement of any length."""
    y = operator(draw(3, *SHAPE, dtype=dtype) * torch.tensor([1.0, 1e-3, 100.0], dtype=dtype)[:, None, None, None])
    for one, again in zip(y, operator(operator.pseudo_inverse(y, SHAPE)), strict=True):
        close(again, one, tolerance)


def test_the_pseudo_inverse_of_anything_equals_numpys(operator):
    """Of y that no sample could give, too."""
    A = matrix_of(operator, SHAPE).numpy()
    y = draw(3, *operator.measured(SHAPE))
    expected = torch.from_numpy(y.flatten(1).numpy() @ np.linalg.pinv(A, rcond=1e-9).T)
    close(operator.pseudo_inverse(y, SHAPE).flatten(1), expected, 1e-8)


@pytest.mark.parametrize("noise", [0.0, 0.3, torch.tensor([0.0, 1e-4, 2.0, 0.0])], ids=["none", "one", "each"])
@pytest.mark.parametrize("prior", [0.7, torch.tensor([1e-3, 0.5, 3.0, 0.0])], ids=["one", "each"])
def test_solve_equals_a_dense_solution(operator, prior, noise):
    A = matrix_of(operator, SHAPE).numpy()
    y = draw(4, *operator.measured(SHAPE))
    found = operator.solve(y, SHAPE, prior, noise).flatten(1)
    of_samples = zip(
        *(torch.as_tensor(each, dtype=torch.float64).expand(4).tolist() for each in (prior, noise)), strict=True
    )
    for sample, (p, n) in enumerate(of_samples):
        inverse = np.linalg.pinv(p * A @ A.T + n * np.eye(len(A)), rcond=1e-12, hermitian=True)
        expected = torch.from_numpy(inverse @ y[sample].flatten().numpy())
        assert float((found[sample] - expected).norm()) <= 1e-8 * float(expected.norm())


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_samples_result_does_not_depend_on_the_others(operator, noise, request):
    """To the bit, however long the others take; but for Fourier transforms, which round otherwise in other batches."""
    y = (
        draw(4, *operator.measured(SHAPE), dtype=torch.float32)
        * torch.tensor([1.0, 1e-3, 1e3, 0.0])[:, None, None, None]
    )
    y[0] = operator(torch.ones(1, *SHAPE))[0]
    together = operator.solve(y, SHAPE, 0.5, noise)
    alone = torch.cat([operator.solve(each[None], SHAPE, 0.5, noise) for each in y])
    if "blur" in request.node.callspec.params["operator"]:
        for one, other in zip(together, alone, strict=True):
            close(one, other, 1e-6)
    else:
        assert torch.equal(together, alone)


def test_it_may_first_be_used_without_gradients(operator):
    with torch.inference_mode():
        operator.solve(draw(1, *operator.measured(SHAPE)), SHAPE, 1.0, 0.0)
    x = draw(1, *SHAPE).requires_grad_()
    operator(x).square().sum().backward()
    assert x.grad is not None


def test_its_record_names_its_class_and_its_parameters(operator):
    record = operator.record()
    assert json.loads(json.dumps(record)) == record
    alone = record.get("operators", [record])
    own = getattr(operator, "operators", {"": operator}).values()
    assert [each["_target_"] for each in alone] == [path_of(type(each)) for each in own]


@pytest.mark.parametrize("name", ALL)
def test_vectors_are_refused(name, tmp_path):
    with pytest.raises(UserError, match=r"measures (RGB )?images \(C, H, W\), and these samples are of shape \(6,\)"):
        ALL[name](tmp_path).measured((6,))
