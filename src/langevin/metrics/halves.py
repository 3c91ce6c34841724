"""Products of which half is known: of triangular matrices, or symmetric themselves.

On a CPU the routines of BLAS and LAPACK for them do half the work of a general product. Here, too, is all in which
these products differ between the devices.
"""

import torch
from scipy.linalg.blas import dsyrk, dtrmm
from scipy.linalg.lapack import dtrtri
from torch import Tensor


def add_outer(total: Tensor, rows: Tensor) -> None:
    """Add ``rows^T rows`` to the lower triangle of `total`, float64 (D, D), in place; the upper one is undefined."""
    if total.device.type == "cpu":
        # BLAS counts columns first. Through numpy, also a state made under Lightning's inference mode can be changed.
        dsyrk(1.0, rows.numpy().T, beta=1.0, c=total.numpy().T, overwrite_c=True)
    else:
        with torch.inference_mode():
            total.addmm_(rows.T, rows)


def lower_outer(rows: Tensor) -> Tensor:
    """The lower triangle of ``rows^T rows``, float64 (D, D); the upper one is undefined."""
    total = rows.new_zeros(rows.shape[1], rows.shape[1])
    add_outer(total, rows)
    return total


def inverse_of(lower: Tensor) -> Tensor:
    """The inverse of a regular lower triangular matrix, float64."""
    if lower.device.type == "cpu":
        return torch.from_numpy(dtrtri(lower.numpy().T)[0].T)
    return torch.linalg.solve_triangular(lower, torch.eye(len(lower)).to(lower), upper=False)


def transposed_by(first: Tensor, second: Tensor) -> Tensor:
    """``first^T second`` of lower triangular matrices, float64."""
    if first.device.type == "cpu":
        return torch.from_numpy(dtrmm(1.0, first.numpy().T, second.numpy().T, side=1, trans_a=1).T)
    return first.T @ second


def by_transposed(first: Tensor, second: Tensor) -> Tensor:
    """``first second^T`` of lower triangular matrices, float64."""
    if first.device.type == "cpu":
        return torch.from_numpy(dtrmm(1.0, second.numpy().T, first.numpy().T, trans_a=1).T)
    return first @ second.T
