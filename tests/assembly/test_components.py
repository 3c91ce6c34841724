import pytest
import torch
from helpers.commands import composed
from omegaconf import OmegaConf

from langevin.assembly.check import check_model
from langevin.assembly.components import make_generator, make_model
from langevin.assembly.make import make, try_instantiate
from langevin.assembly.saved import override
from langevin.codecs.identity import Identity
from langevin.config.validate import ConfigError
from langevin.errors import UserError
from langevin.spec import DataSpec

SPEC = DataSpec.of_images(channels=1, image_size=8, num_classes=None)


def write(folder, monkeypatch, name, source):
    (folder / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))


def test_make_hands_on_what_the_constructor_has_a_name_for(tmp_path, monkeypatch):
    source = "class Part:\n    def __init__(self, a, sizes, network=0):\n        self.all = a, sizes, network\n"
    write(tmp_path, monkeypatch, "make_part", source)
    cfg = OmegaConf.create({"group": {"part": {"_target_": "make_part.Part", "a": 1, "sizes": [1, 2]}}})
    part = make(cfg, "group.part", network=torch.zeros(2), record=3)
    a, sizes, given = part.all
    assert (a, sizes, type(sizes)) == (1, [1, 2], list)
    assert given.shape == (2,)


def test_make_refuses_what_the_program_decides():
    cfg = OmegaConf.create({"sampler": {"_target_": "langevin.samplers.ddim.DDIM", "timestep_spacing": 3}})
    with pytest.raises(
        UserError, match=r"sampler\.timestep_spacing: is decided by the rest of the config; leave it out$"
    ):
        make(cfg, "sampler", timestep_spacing=None)


def test_make_names_the_path_of_the_value():
    cfg, _ = composed("train", "schedule.beta_end=1e-5", "data.image_size=0")
    with pytest.raises(UserError, match=r"schedule\.beta_end: is 1e-05; allowed"):
        make(cfg, "schedule")
    with pytest.raises(UserError, match=r"data\.image_size: is 0; allowed: at least 1$"):
        make(cfg, "data")


def test_attempt_leaves_the_config_alone():
    cfg, _ = composed("train", "schedule=sigmoid_log_snr", "schedule.end=-4", "schedule.log_snr_max=-20")
    before = OmegaConf.to_yaml(cfg)
    schedule, mistakes = try_instantiate(cfg, "schedule")
    assert schedule is None
    assert [path for path, _ in mistakes] == ["schedule.end", "schedule.log_snr_max"]
    assert OmegaConf.to_yaml(cfg) == before
    sampler, mistakes = try_instantiate(composed("train", "sampler.steps=7")[0], "sampler", timestep_spacing=None)
    assert (sampler.steps, mistakes) == (7, [])


@pytest.mark.parametrize("default", ["", " = -1"])
def test_attempt_ends_where_no_value_will_do(default, tmp_path, monkeypatch):
    name = f"never_content_{len(default)}"
    source = (
        "from langevin.errors import OptionError\nclass Part:\n"
        f"    def __init__(self, a: int{default}):\n        raise OptionError('a', f'is {{a}}; allowed: nothing')\n"
    )
    write(tmp_path, monkeypatch, name, source)
    cfg = OmegaConf.create({"part": {"_target_": f"{name}.Part", "a": -1}})
    assert try_instantiate(cfg, "part") == (None, [("part.a", "is -1; allowed: nothing")])


@pytest.mark.parametrize(
    ("raised", "mistakes"),
    [
        ("OptionError('a', 'is 3; allowed: 4')", [("part.a", "is 3; allowed: 4")]),
        ("OptionError('a', 'is 3', [('b', 'is 4')])", [("part.a", "is 3"), ("part.b", "is 4")]),
        ("OptionError('seed', 'is 3')", [("seed", "is 3")]),
        ("OptionError('other.size', 'is 3')", [("other.size", "is 3")]),
        ("OptionError('unknown', 'is 3')", [("part", "unknown is 3")]),
        ("UserError('a is 3; allowed: 4')", [("part", "a is 3; allowed: 4")]),
    ],
)
def test_what_a_constructor_raises_gets_the_path_of_the_value(raised, mistakes, tmp_path, monkeypatch):
    name = f"says_{abs(hash(raised))}"
    source = "from langevin.errors import OptionError, UserError\n"
    source += f"class Part:\n    def __init__(self, a, b):\n        raise {raised}\n"
    write(tmp_path, monkeypatch, name, source)
    cfg = OmegaConf.create({"seed": 3, "other": {"size": 3}, "part": {"_target_": f"{name}.Part", "a": 3, "b": 4}})
    assert try_instantiate(cfg, "part") == (None, mistakes)


def test_a_condition_needs_labels():
    cfg, _ = composed("train", "conditions=[class_label]")
    with pytest.raises(UserError, match=r"conditions\.class_label: needs labels, but the data has none; leave it out"):
        make_model(cfg, SPEC)


def test_labels_must_suit_the_model():
    unconditional, _ = composed("train")
    with pytest.raises(UserError, match="the model is not conditioned on labels, so leave labels out"):
        make_generator(unconditional, SPEC, Identity(), [3])
    conditional, _ = composed("train", "conditions=[class_label]")
    spec = DataSpec.of_images(channels=1, image_size=8, num_classes=3)
    with pytest.raises(UserError, match="allowed: whole numbers from 0 to 2"):
        make_generator(conditional, spec, Identity(), [3])
    assert make_generator(conditional, spec, Identity()).requests.labels == [0, 1, 2]


def test_override_replaces_components_and_merges_fields():
    run, _ = composed(
        "train", "sampler=ddim", "sampler.eta=0.5", "conditions=[class_label]", "guidance=classifier_free"
    )
    before = OmegaConf.to_yaml(run)
    choices = OmegaConf.create({"sampler": {"steps": 7}, "guidance": None})
    chosen = override(run, choices, ("sampler", "timestep_spacing", "guidance"))
    assert dict(chosen.sampler) == {**run.sampler, "steps": 7}
    assert chosen.timestep_spacing == run.timestep_spacing
    assert chosen.guidance is None
    assert OmegaConf.to_yaml(run) == before
    other = OmegaConf.create({"sampler": {"_target_": "langevin.samplers.ancestral.Ancestral", "steps": 3}})
    assert override(run, other, ("sampler",)).sampler == other.sampler


def test_a_model_is_checked_without_what_trained_it():
    """A colleague's logger or data need not be installed to sample from his model."""
    run, _ = composed("train")
    run.trainer._target_ = run.optimizer._target_ = run.data._target_ = "not.installed.here"
    check_model(run, ("sampler", "timestep_spacing"))
    run.schedule._target_ = "not.installed.here"
    run.sampler.steps = 0
    with pytest.raises(ConfigError) as caught:
        check_model(run, ("sampler", "timestep_spacing"))
    assert [path for path, _ in caught.value.mistakes] == ["schedule._target_", "sampler.steps"]
