"""Runs with the learned scale of the loss: it is trained, saved, resumed, and no part of what samples."""

import pytest
from training_helpers import QUIET, VALIDATED, column, differing, train, trained

from langevin.assembly.saved import load_model

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

LEARNED = (*QUIET, *VALIDATED, "objective=uncertainty", "formulation=edm", "trainer.max_steps=4")
WEIGHT = "objective.linear.weight"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("uncertainty"), *LEARNED)


def test_it_is_logged_beside_what_compares(run):
    losses, weighted, u = (column(run.rows, f"train/{name}") for name in ("loss", "weighted", "uncertainty"))
    assert all(losses[step] != weighted[step] and u[step] != 0 for step in range(1, 5))
    validated = column(run.rows, "val/loss")
    assert list(validated) == [2, 4]
    assert validated == column(run.rows, "val/weighted")


def test_a_resumed_run_is_the_undisturbed_run(run, tmp_path):
    half = train(tmp_path, *LEARNED, "trainer.max_steps=2")
    assert WEIGHT in differing(trained(half), trained(run))
    resumed = train(tmp_path, *LEARNED)
    assert "from step 2 to 4" in resumed.out
    assert differing(trained(resumed), trained(run)) == []


def test_it_is_no_part_of_the_model(run):
    held = trained(run)
    assert {name for name in held if "linear.weight" in name and "network" not in name} == {WEIGHT}
    model = load_model(run.last)
    assert not any(name.startswith("objective") for name, _ in model.denoiser.named_parameters())
