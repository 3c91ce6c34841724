"""What the controls offer, and what they do."""

import numpy as np
import pytest

import langevin
from langevin.ui.explorer import OWN, Asked, Explorer


@pytest.fixture(scope="module")
def run(labelled):
    return langevin.load(labelled)


@pytest.fixture(scope="module")
def explorer(run):
    return Explorer([run])


@pytest.fixture(scope="module")
def mixed(run, plain):
    return Explorer([plain, run])


def made(explorer, **asked):
    return [each.samples.samples for each in explorer.sample(Asked(**asked))]


def test_samples_are_those_of_the_run(run, explorer):
    (default,) = made(explorer, n=5)
    assert default.std() > 10
    assert np.array_equal(default, run.sample(5).samples)
    chosen = {"sampler": "euler", "steps": 3, "seed": 4}
    (found,) = explorer.sample(Asked(n=5, label=2, guidance=2.5, **chosen))
    assert np.array_equal(found.samples.samples, run.sample(5, labels=2, guidance=2.5, **chosen).samples)
    assert np.array_equal(found.samples.samples, eval(found.call, {"langevin": langevin}).samples)
    assert found.samples.labels.tolist() == [2] * 5
    assert np.array_equal(found.samples.trajectory.finished.movedim(1, -1).numpy(), found.samples.samples)
    assert len(found.samples.trajectory.x) == 3


@pytest.mark.slow
def test_a_run_keeps_its_own_guidance_at_its_own_scale(own_guidance):
    run = langevin.load(own_guidance)
    explorer = Explorer([run])
    assert explorer.guidance == 3
    (own,), (other,) = made(explorer, n=3, guidance=3), made(explorer, n=3, guidance=2)
    assert np.array_equal(own, run.sample(3).samples)
    assert np.array_equal(other, run.sample(3, guidance=2).samples)
    assert not np.array_equal(own, run.sample(3, guidance=3).samples), "that is without its rescale"


@pytest.mark.slow
def test_one_run_is_offered_what_suits_it(explorer, plain, points):
    assert explorer.class_names[1] == "<b>one</b>"
    assert {"ancestral", "ddim", "heun"} <= explorer.samplers.keys()
    assert (explorer.default_steps(OWN), explorer.default_steps("ddim"), explorer.default_steps("ancestral")) == (
        *(2, 50, None),
    )
    assert (explorer.guidance, explorer.most, explorer.number) == (1.0, 100, 20)
    (both,) = explorer.sample(Asked(n=12))
    assert (both.columns, len(explorer.class_names)) == (10, 10), "a column is a class"
    for other in (plain, points):
        explorer = Explorer([other])
        assert (explorer.class_names, explorer.guidance) == (None, None)
        (found,) = explorer.sample(Asked(n=3, label=1, guidance=2.0))
        assert np.array_equal(found.samples.samples, other.sample(3).samples), "what it has no control for is left out"
    assert (explorer.most, explorer.number) == (10_000, 2000)


@pytest.mark.slow
def test_two_runs_are_offered_what_suits_both(run, own_guidance, plain, mixed):
    second = langevin.load(own_guidance)
    explorer = Explorer([run, second])
    assert "heun" in explorer.samplers
    assert "ancestral" not in explorer.samplers
    assert explorer.class_names == tuple("0123456789"), "the names do not agree"
    one, two = made(explorer, n=4, label=3, seed=1, sampler="heun", steps=2, guidance=2.0)
    assert np.array_equal(one, run.sample(4, labels=3, seed=1, sampler="heun", steps=2, guidance=2.0).samples)
    assert np.array_equal(two, second.sample(4, labels=3, seed=1, sampler="heun", steps=2, guidance=2.0).samples)
    assert mixed.class_names == run.class_names
    assert mixed.guidance is None
    one, two = made(mixed, n=4, label=3)
    assert np.array_equal(one, plain.sample(4).samples)
    assert np.array_equal(two, run.sample(4, labels=3).samples)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "^steps: is 0; allowed: a whole number, at least 1"),
        ({"steps": 5000}, "steps.* is 5000; allowed: .*1000"),
        ({"seed": None}, "^seed: is not given; give a whole number$"),
        ({"seed": -1}, "^seed: is -1; allowed: a whole number, at least 0$"),
        ({"n": None}, "^number of samples: is not given"),
    ],
)
def test_mistakes_are_named(explorer, wrong, message):
    with pytest.raises(langevin.UserError, match=message):
        explorer.sample(Asked(**{"n": 2} | wrong))


def test_a_mistake_names_the_run_where_there_are_two(mixed):
    with pytest.raises(langevin.UserError, match=r"^plain: steps: is 0; allowed: "):
        mixed.sample(Asked(2, steps=0))


@pytest.mark.slow
def test_a_model_of_texts_is_asked_by_a_prompt(texts, run):
    explorer = Explorer([texts])
    assert explorer.prompted
    (found,) = explorer.sample(Asked(n=4, prompt=" a three \n"))
    assert np.array_equal(found.samples.samples, texts.sample(4, prompt="a three").samples)
    assert "prompt=['a three']" in found.call
    assert found.samples.classes == ["a three"] * 4
    (other,) = explorer.sample(Asked(n=4, prompt="secrets.txt"))
    assert other.samples.prompts == ["secrets.txt"] * 4, "a text, and no file of this machine"
    (free,) = explorer.sample(Asked(n=4))
    assert np.array_equal(free.samples.samples, texts.sample(4).samples)
    assert not Explorer([run]).prompted
    both = Explorer([texts, run]).sample(Asked(n=3, prompt="a three"))
    assert np.array_equal(both[1].samples.samples, run.sample(3).samples), "it takes none"
