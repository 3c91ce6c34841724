"""What experiments/restoration measures."""

import pytest
import torch
from experiments.restoration import digits, gaussian


def test_an_exact_method_is_near_the_posterior_and_one_that_does_nothing_is_not():
    operator = gaussian.OPERATORS["mask"]
    for noise in (0.0, 0.1):
        found = gaussian.measured(gaussian.MMPS(4), gaussian.ddim(0)(50), operator, noise, 500)
        assert found.mean < 0.2
        assert 0.8 < found.least <= found.greatest < 1.2
    nothing = gaussian.measured(gaussian.DPS(0), gaussian.ancestral(50), operator, 0.1, 500)
    assert nothing.mean > 3, "the prior's mean is many deviations of a noise of 0.1 away"
    assert nothing.greatest > 3


def test_originals_are_perfect_and_what_needs_no_model_is_not():
    judge, task = digits.Judge(50), digits.TASKS["average"]
    best = judge(judge.originals, task.operator)
    assert best["psnr"] == pytest.approx(66.2, abs=0.1)  # that of exact copies of 8 x 8 levels
    assert best["consistency"] == 0
    assert best["class_accuracy"] > 0.9
    plain = digits.without_model(task, judge.originals)
    assert set(plain) == {"A^+ y", "bilinear", "bicubic"}
    assert judge(plain["A^+ y"], task.operator)["consistency"] < 0.5, "but for rounding"
    assert all(judge(images, task.operator)["psnr"] < 20 for images in plain.values())


def test_evaluations_and_gradients_are_counted():
    network = torch.nn.Linear(3, 3)
    x = torch.zeros(2, 3, requires_grad=True)
    with digits.counted(network) as counts:
        network(x.detach())
        out = network(x)
        for _ in range(3):
            torch.autograd.grad(out, x, torch.ones_like(out), retain_graph=True)
    network(x)
    assert counts == [2, 3]
