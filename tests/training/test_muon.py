import math

import pytest
import torch
from helpers.commands import ROOT
from torch import nn
from training_helpers import QUIET, TINY, Run, column, differing, start, train, trained

from langevin.training.muon import COEFFICIENTS, Muon, iterated, orthogonalized

LEARNS = (*QUIET, "optimizer=muon", "optimizer.lr=1e-3", "optimizer.weight_decay=0.1")


def stepped(weights, optimizer, steps=4):
    """The weights after some steps along gradients that depend on them."""
    for step in range(steps):
        for index, weight in enumerate(weights):
            weight.grad = torch.sin(weight.detach() * 7 + step + index)
        optimizer.step()
    return [weight.detach().clone() for weight in weights]


def parameters(*shapes):
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


@pytest.mark.parametrize("nesterov", [True, False])
def test_matrices_take_torchs_steps_and_the_rest_those_of_adamw(nesterov):
    """Those of matrices but for the bfloat16 of torch's."""
    shapes = [(40, 50), (64, 33)], [(7,), (31, 200), (1, 4, 500)]
    settings = {"lr": 3e-3, "weight_decay": 0.1}
    own = stepped(both := parameters(*shapes[0], *shapes[1]), Muon(both, nesterov=nesterov, eps=1e-6, **settings))
    before = parameters(*shapes[0], *shapes[1])
    weights = parameters(*shapes[0], *shapes[1])
    muon = {"nesterov": nesterov, "adjust_lr_fn": "match_rms_adamw", "ns_steps": 5}
    matrices = torch.optim.Muon(weights[:2], **muon, **settings)
    others = torch.optim.AdamW(weights[2:], eps=1e-6, **settings)

    class Both:
        def step(self):
            matrices.step()
            others.step()

    expected = stepped(weights, Both())
    assert all(torch.equal(a, b) for a, b in zip(own[2:], expected[2:], strict=True))
    for old, a, b in zip(before[:2], own[:2], expected[:2], strict=True):
        assert (a - b).norm() < 0.02 * (b - old).norm()


def test_a_gpu_orthogonalizes_as_torchs_muon_does_to_the_bit():
    (matrix,) = parameters((40, 90))
    weight = nn.Parameter(torch.zeros(40, 90))
    weight.grad = matrix.detach()
    torch.optim.Muon([weight], lr=1.0, momentum=0.0, nesterov=False, weight_decay=0.0).step()
    x = weight.grad.bfloat16()
    assert torch.equal(-weight.detach(), iterated(x / x.norm(), 5).float())


def test_a_convolution_is_a_matrix_of_its_filters():
    (kernel,), (matrix,) = parameters((40, 16, 3, 3)), parameters((40, 144))
    a, b = (stepped([weight], Muon([weight]))[0] for weight in (kernel, matrix))
    assert torch.equal(a.flatten(1), b)


@pytest.mark.parametrize("shape", [(64, 200), (200, 64)])
def test_a_step_has_singular_values_near_one_which_are_those_of_its_polynomial(shape):
    (matrix,) = parameters(shape)
    matrix = (matrix @ torch.diag(torch.logspace(0, -4, shape[1]))).detach()  # badly conditioned
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.norm()
    a, b, c = COEFFICIENTS
    for _ in range(5):
        values = a * values + b * values**3 + c * values**5
    torch.testing.assert_close(orthogonalized(matrix, 5).double(), left @ torch.diag(values) @ right, atol=1e-4, rtol=0)
    well = torch.linalg.svdvals(orthogonalized(parameters(shape)[0].detach() * 1e-3, 5))
    assert 0.5 < well.min() < well.max() < 1.5


def test_a_step_is_of_the_size_of_one_of_adamw():
    (weight,) = parameters((128, 256))
    before = weight.detach().clone()
    (after,) = stepped([weight], Muon([weight], lr=0.01), steps=1)
    assert (after - before).square().mean().sqrt() / 0.01 == pytest.approx(0.2, rel=0.2)


def test_a_weight_without_a_gradient_stays_and_gradients_are_kept():
    matrix, idle, vector = parameters((40, 40), (40, 40), (3,))
    optimizer, before = Muon([matrix, idle, vector]), idle.detach().clone()
    matrix.grad, vector.grad = torch.ones_like(matrix), torch.ones_like(vector)
    optimizer.step()
    assert torch.equal(idle, before)
    assert torch.equal(matrix.grad, torch.ones(40, 40))
    assert idle not in optimizer.state


def test_a_gradient_is_clipped_as_one(tmp_path):
    """Muon splits the weights into two groups, whose norm is one number."""
    options = (*QUIET, "trainer.max_steps=1", "lr_schedule.steps=0")
    norms = [
        column(train(tmp_path, *options, f"optimizer={name}", name=name).rows, "train/grad_norm")[1]
        for name in ("adamw", "muon")
    ]
    assert norms[0] == norms[1]


@pytest.mark.slow
def test_a_resumed_run_is_the_same(tmp_path):
    whole = train(tmp_path, *LEARNS, name="whole")
    train(tmp_path, *LEARNS, "trainer.max_steps=3")
    resumed = train(tmp_path, *LEARNS)
    assert "from step 3 to 6" in resumed.out
    kinds = {name.rpartition(".")[2] for name in trained(whole) if name.startswith("optimizer.")}
    assert {"momentum_buffer", "exp_avg"} <= kinds
    assert differing(trained(resumed), trained(whole)) == []
    assert resumed.rows == whole.rows


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_take_the_steps_of_one(tmp_path, strategy):
    """To the rounding of bfloat16, in which a step is orthogonalized."""
    options = (*LEARNS, "model.dropout=0", "trainer.max_steps=4", f"output_dir={tmp_path}")
    two = (*TINY, *options, f"trainer.strategy={strategy}", "trainer.devices=2", "name=two")
    start(ROOT / "train.py", *{option.partition("=")[0]: option for option in two}.values())
    one, both = train(tmp_path, *options, name="one"), Run(0, "", "", tmp_path / "two")
    assert column(both.rows, "train/loss") == pytest.approx(column(one.rows, "train/loss"), rel=1e-3)
    first, second = trained(one), trained(both)
    assert first.keys() == second.keys()
    for name in first:
        if name.startswith("model.") and first[name].ndim > 1:
            assert (first[name] - second[name]).norm() < 0.1 * first[name].norm(), name
    # The ranks hold the same momentum: a run of two processes is resumed by one.
    resumed = train(tmp_path, *options, "trainer.max_steps=5", name="two")
    assert math.isfinite(column(resumed.rows, "train/loss")[5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["optimizer=muon", "optimizer.momentum=1"],
            "optimizer.momentum: is 1; allowed: a number, at least 0, below 1",
        ),
        (["optimizer=muon", "optimizer.ns_steps=0"], "optimizer.ns_steps: is 0; allowed: a whole number, at least 1"),
        (["optimizer=sgd", "optimizer.nesterov=true", "optimizer.momentum=0"], "Nesterov momentum requires a momentum"),
    ],
)
def test_refuses_what_is_out_of_range(tmp_path, options, message):
    run = train(tmp_path, *options, status=1)
    assert message in run.err
    assert "Traceback" not in run.err


@pytest.mark.slow
def test_sgd_with_momentum_resumes(tmp_path):
    options = (*QUIET, "optimizer=sgd", "optimizer.nesterov=true", "optimizer.lr=0.1")
    whole = train(tmp_path, *options, name="whole")
    train(tmp_path, *options, "trainer.max_steps=3")
    assert differing(trained(train(tmp_path, *options)), trained(whole)) == []


def test_another_optimizer_is_named_by_its_class_alone(tmp_path):
    run = train(tmp_path, *QUIET, "optimizer._target_=torch.optim.SGD", "optimizer.lr=0.1", "optimizer.momentum=0.5")
    text = (run.directory / "config.yaml").read_text()
    assert "_target_: torch.optim.SGD\n  lr: 0.1\n  weight_decay: 0.0\n  momentum: 0.5\n" in text
    refused = train(tmp_path, "optimizer._target_=torch.optim.SGD", "optimizer.eps=1e-3", name="b", status=1)
    assert "optimizer.eps: no such option" in refused.err
