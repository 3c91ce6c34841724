import pytest
import torch
from helpers.commands import composed
from omegaconf import OmegaConf

from langevin.build.check import check_model
from langevin.build.components import make_denoiser, make_generator
from langevin.build.make import attempt, make
from langevin.build.saved import override
from langevin.config.validate import ConfigError
from langevin.errors import UserError
from langevin.facts import DataFacts

FACTS = DataFacts(channels=1, image_size=8, num_classes=None)


def write(folder, monkeypatch, name, source):
    (folder / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))


def test_make_hands_on_what_the_constructor_has_a_name_for(tmp_path, monkeypatch):
    source = "class Part:\n    def __init__(self, a, sizes, given=0):\n        self.all = a, sizes, given\n"
    write(tmp_path, monkeypatch, "make_part", source)
    cfg = OmegaConf.create({"group": {"part": {"_target_": "make_part.Part", "a": 1, "sizes": [1, 2]}}})
    part = make(cfg, "group.part", given=torch.zeros(2), ignored=3)
    a, sizes, given = part.all
    assert (a, sizes, type(sizes)) == (1, [1, 2], list)
    assert given.shape == (2,)


def test_make_refuses_what_the_program_decides():
    cfg = OmegaConf.create({"sampler": {"_target_": "langevin.samplers.ddim.DDIM", "grid": 3}})
    with pytest.raises(UserError, match=r"^sampler\.grid: is decided by the rest of the config; leave it out$"):
        make(cfg, "sampler", grid=None)


def test_make_puts_the_path_in_front_once():
    cfg, _ = composed("train", "schedule.beta_end=1e-5", "data.image_size=0")
    with pytest.raises(UserError, match=r"^schedule: beta_end is 1e-05; allowed"):
        make(cfg, "schedule")
    with pytest.raises(UserError, match=r"^data\.image_size=0: must be at least 1$"):
        make(cfg, "data")


def test_attempt_leaves_the_config_alone():
    cfg, _ = composed("train", "schedule=sigmoid_log_snr", "schedule.end=-4", "schedule.log_snr_max=-20")
    before = OmegaConf.to_yaml(cfg)
    schedule, mistakes = attempt(cfg, "schedule")
    assert schedule is None
    assert [path for path, _ in mistakes] == ["schedule.end", "schedule.log_snr_max"]
    assert OmegaConf.to_yaml(cfg) == before
    sampler, mistakes = attempt(composed("train", "sampler.steps=7")[0], "sampler", grid=None)
    assert (sampler.steps, mistakes) == (7, [])


@pytest.mark.parametrize("default", ["", " = -1"])
def test_attempt_ends_where_no_value_will_do(default, tmp_path, monkeypatch):
    name = f"never_content_{len(default)}"
    source = (
        "from langevin.errors import UserError\nclass Part:\n"
        f"    def __init__(self, a: int{default}):\n        raise UserError(f'a is {{a}}; allowed: nothing')\n"
    )
    write(tmp_path, monkeypatch, name, source)
    cfg = OmegaConf.create({"part": {"_target_": f"{name}.Part", "a": -1}})
    assert attempt(cfg, "part") == (None, [("part.a", "is -1; allowed: nothing")])


@pytest.mark.parametrize(
    ("said", "path", "message"),
    [
        ("a is 3; allowed: 4", "part.a", "is 3; allowed: 4"),
        ("part: a is 3; allowed: 4", "part.a", "is 3; allowed: 4"),
        ("part.a=3: must be 4", "part.a", "is 3: must be 4"),
        ("Part.a: 3 is too few: at least 4", "part.a", "3 is too few: at least 4"),
        ("seed=3: must be 4", "seed", "is 3: must be 4"),
        ("other=3: must be 4", "part", "other=3: must be 4"),
        ("a is 3 and b 4; allowed: 5", "part", "a is 3 and b 4; allowed: 5"),
        ("nothing is right", "part", "nothing is right"),
    ],
)
def test_a_constructors_words_become_a_path_and_a_message(said, path, message, tmp_path, monkeypatch):
    name = f"says_{abs(hash(said))}"
    source = f"class Part:\n    def __init__(self, a, b):\n        raise ValueError({said!r})\n"
    write(tmp_path, monkeypatch, name, source)
    cfg = OmegaConf.create({"seed": 3, "part": {"_target_": f"{name}.Part", "a": 3, "b": 4}})
    which = "; it is about one of these, or several: part.a=3, part.b=4" if path == "part" else ""
    assert attempt(cfg, "part") == (None, [(path, message + which)])


def test_a_condition_needs_labels():
    cfg, _ = composed("train", "condition=class_label")
    with pytest.raises(UserError, match="the data has none; leave condition out"):
        make_denoiser(cfg, FACTS)


def test_labels_must_suit_the_model():
    unconditional, _ = composed("train")
    with pytest.raises(UserError, match="the model is unconditional, so leave labels out"):
        make_generator(unconditional, FACTS, [3])
    conditional, _ = composed("train", "condition=class_label")
    facts = DataFacts(channels=1, image_size=8, num_classes=3)
    with pytest.raises(UserError, match="allowed: whole numbers from 0 to 2"):
        make_generator(conditional, facts, [3])
    assert list(make_generator(conditional, facts).labels) == [0, 1, 2]


def test_override_replaces_components_and_merges_fields():
    run, _ = composed("train", "sampler=ddim", "sampler.eta=0.5", "condition=class_label", "guidance=classifier_free")
    before = OmegaConf.to_yaml(run)
    choices = OmegaConf.create({"sampler": {"steps": 7}, "guidance": None})
    chosen = override(run, choices, ("sampler", "grid", "guidance"))
    assert dict(chosen.sampler) == {**run.sampler, "steps": 7}
    assert chosen.grid == run.grid
    assert chosen.guidance is None
    assert OmegaConf.to_yaml(run) == before
    other = OmegaConf.create({"sampler": {"_target_": "langevin.samplers.ancestral.Ancestral", "steps": 3}})
    assert override(run, other, ("sampler",)).sampler == other.sampler


def test_a_model_is_checked_without_what_trained_it():
    """A colleague's logger or data need not be installed to sample from his model."""
    run, _ = composed("train")
    run.trainer._target_ = run.optimizer._target_ = run.data._target_ = "not.installed.here"
    check_model(run, ("sampler", "grid"))
    run.schedule._target_ = "not.installed.here"
    run.sampler.steps = 0
    with pytest.raises(ConfigError) as caught:
        check_model(run, ("sampler", "grid"))
    assert [path for path, _ in caught.value.mistakes] == ["schedule._target_", "sampler.steps"]
