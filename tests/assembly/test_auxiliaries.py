"""The auxiliaries of a config: mistakes that are found before data is touched, and what names the run."""

import pytest
import torch
from contracts.options import NARROW, untrained, with_files
from helpers.commands import composed
from helpers.dinov2 import offline_hub, save_dinov2
from omegaconf import open_dict

from langevin.assembly import saved
from langevin.assembly.auxiliaries import complete
from langevin.assembly.check import mistakes_in
from langevin.assembly.logged_values import ANY, logged_names
from langevin.assembly.run import make_module
from langevin.assembly.saved import load_trained
from langevin.assembly.tasks import task_of
from langevin.config.identity import automatic_name, differences
from langevin.diffusion import auxiliary
from langevin.diffusion.objective import Simple
from langevin.digest import digest_of
from langevin.spec import DataSpec

SMALL = ("model.channels=32", "model.channel_multipliers=[1]")
DIT = ("model=dit_s", "model.depth=2", "model.width=32", "model.heads=2", "model.patch_size=2")


def aligned(*overrides, run="{classifier}"):
    return composed(
        "train", "auxiliaries=[alignment]", with_files(f"auxiliaries.alignment.run={run}"), *map(with_files, overrides)
    )


@pytest.mark.parametrize(
    ("overrides", "field", "words"),
    [
        (
            (*SMALL, "auxiliaries.alignment.tap=block_1"),
            "tap",
            "is block_1; allowed with this UNet: null or one of down_1",
        ),
        (
            (*DIT, "auxiliaries.alignment.tap=middle"),
            "tap",
            "is middle; allowed with this DiT: null or one of block_1, ",
        ),
        ((*SMALL, "auxiliaries.alignment.tap=''"), "tap", "is ''; allowed with this UNet: null or one of down_1"),
        ((*SMALL, "auxiliaries.alignment.level=1"), "level", "is 1; allowed: -1 to 0, of the 1 levels of the classif"),
        ((*SMALL, "auxiliaries.alignment.weight=0"), "weight", "is 0; allowed: a number, above 0"),
        ((*SMALL, "data.image_size=16"), "run", "a classifier of images of (channels, height, width) (1, 8, 8), and "),
        (("model=mlp", "data=toy"), "tap", "is null, and MLP has no taps; allowed: null with a network that has some"),
        (
            ("codec=autoencoder", "codec.run={autoencoder}", *SMALL),
            "run",
            "and what is diffused is no image; allowed: ",
        ),
        ((*SMALL, "auxiliaries.alignment.weights=abc"), "weights", "is abc, but auxiliaries.alignment.run=/"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_are_found_before_data_is_touched(overrides, field, words):
    ((path, text),) = mistakes_in(aligned(*overrides)[0])
    assert path == f"auxiliaries.alignment.{field}"
    assert words in text


def test_a_run_of_another_task_is_refused():
    ((path, text),) = mistakes_in(aligned(*SMALL, run="{model}")[0])
    assert path == "auxiliaries.alignment.run"
    assert "allowed: a classifier's run (task=classifier); this is a denoiser's" in text


def test_a_field_that_is_left_out_must_be_given():
    cfg, _ = aligned(*SMALL)
    del cfg.auxiliaries.alignment.run
    assert mistakes_in(cfg) == [("auxiliaries.alignment.run", "must be given")]


def called(name, *overrides):
    cfg, choices = aligned(*SMALL, *overrides)
    with open_dict(cfg):
        cfg.auxiliaries[name] = cfg.auxiliaries.pop("alignment")
        del cfg.auxiliaries[name].weights
    return cfg, choices


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mse", "another value that is logged"),
        ("discrete_vlb", "another value that is logged"),
        ("images_per_second", "another value that is logged"),
        ("train", "that PyTorch does not take, or has for something else"),
        ("keys", "that PyTorch does not take, or has for something else"),
    ],
)
def test_a_name_that_stands_for_something_else_is_refused(name, words):
    ((path, text),) = mistakes_in(called(name, "likelihoods=[discrete_vlb]")[0])
    assert path == f"auxiliaries.{name}"
    assert words in text


@pytest.mark.parametrize("name", ["loss", "grad_norm", "learning_rate"])
def test_so_is_what_is_always_logged_where_the_terms_are_not_known(name, monkeypatch):
    monkeypatch.setattr(Simple, "logs", ANY)
    ((path, text),) = mistakes_in(called(name)[0])
    assert (path, text) == (f"auxiliaries.{name}", "is the name of another value that is logged; call it otherwise")


def none():
    """No auxiliary either."""


@pytest.mark.parametrize(
    "target",
    ["{_target_: torch.nn.Linear, in_features: 1, out_features: 2}", "{_target_: io.StringIO}", "{_target_: MINE}"],
)
def test_what_is_no_auxiliary_is_refused(target):
    target = target.replace("MINE", f"{__name__}.none")
    ((path, text),) = mistakes_in(composed("train", *SMALL, f"+auxiliaries.a={target}")[0])
    assert path == "auxiliaries.a._target_"
    assert text.endswith("; allowed: what makes a langevin.diffusion.auxiliary.Auxiliary")


def test_under_any_name_and_without_its_field_the_weights_are_found():
    cfg, choices = called("features")
    assert mistakes_in(cfg) == []
    assert cfg.auxiliaries.features.weights == digest_of(load_trained(untrained(*NARROW["{classifier}"])).model.network)
    other, _ = called("features")
    other.auxiliaries.features.run = "elsewhere"
    assert differences(cfg, other)[0].startswith("auxiliaries.features.run: "), "whose weights are not known"
    with open_dict(other):
        other.auxiliaries.features.weights = cfg.auxiliaries.features.weights
    assert differences(cfg, other) == []
    assert automatic_name(cfg, choices) == automatic_name(other, choices)


def test_the_weights_are_part_of_the_name_and_where_they_lie_is_not():
    cfg, choices = aligned(*SMALL)
    other, _ = aligned(*SMALL)
    assert mistakes_in(cfg) == complete(other, {}) == []
    place = untrained(*NARROW["{classifier}"])
    assert cfg.auxiliaries.alignment.weights == digest_of(load_trained(place).model.network)
    other.auxiliaries.alignment.run = "elsewhere"
    assert automatic_name(other, choices) == automatic_name(cfg, choices)
    assert differences(cfg, other) == []
    other.auxiliaries.alignment.weights = "0" * 64
    (line,) = differences(cfg, other)
    assert line.startswith("auxiliaries.alignment.weights: ")
    assert automatic_name(other, choices) != automatic_name(cfg, choices)
    without, chosen = composed("train", *SMALL)
    assert "auxiliaries" not in without
    assert automatic_name(without, chosen) != automatic_name(cfg, choices)


def test_its_term_is_known_to_be_logged():
    cfg, _ = aligned(*SMALL)
    assert {"train/alignment", "val/alignment"} <= set(logged_names(cfg, task_of(cfg)))


def counted(monkeypatch, module, name):
    calls, real = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args, **options: calls.append(args) or real(*args, **options))
    return calls


def test_what_it_reads_is_read_and_digested_once_and_moves_no_random_number(monkeypatch):
    cfg, _ = aligned(*SMALL)
    reads, digests = counted(monkeypatch, saved, "read_checkpoint"), counted(monkeypatch, auxiliary, "digest_of")
    teachers, spec = {}, DataSpec.of_images(1, 8, 10)
    assert mistakes_in(cfg, teachers) == []
    states = []
    for given in (teachers, None):
        torch.manual_seed(0)
        states.append(make_module(cfg, spec, given).objective.state_dict())
        if given is teachers:
            assert (len(reads), len(digests)) == (1, 1)
    assert len(states[0]) == 6
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.fixture
def hub(tmp_path):
    with offline_hub(tmp_path / "hub") as place:
        yield place


def to_dinov2(*overrides):
    return composed("train", "auxiliaries=[dinov2_alignment]", *SMALL, *overrides)


def test_of_dinov2_the_weights_are_part_of_the_name(hub):
    save_dinov2(hub)
    (cfg, choices), (same, _), (other, _) = (to_dinov2() for _ in range(3))
    assert mistakes_in(cfg) == mistakes_in(same) == []
    save_dinov2(hub, seed=1)
    assert mistakes_in(other) == []
    assert len(cfg.auxiliaries.dinov2_alignment.weights) == 64
    assert automatic_name(cfg, choices) == automatic_name(same, choices) != automatic_name(other, choices)
    (line,) = differences(cfg, other)
    assert line.startswith("auxiliaries.dinov2_alignment.weights: ")


@pytest.mark.parametrize(
    ("overrides", "field", "words"),
    [
        (("model.channels=32",), "model", "is dinov2-vit-b-14, which torch hub does not give ("),
        (("{}.model=vit",), "model", "is vit; allowed: one of dinov2-vit-s-14, dinov2-vit-b-14, "),
        (("~{}.model", "{}.tap=''"), "tap", "is ''; allowed with this UNet: null or one of down_1"),
        (("{}.weights=abc",), "weights", "but auxiliaries.dinov2_alignment.model=dinov2-vit-b-14 has "),
        (("{}.tap=block_1",), "tap", "is block_1; allowed with this UNet: null or one of down_1"),
        (("{}.width=0",), "width", "is 0; allowed: a whole number, at least 1"),
        (("codec=autoencoder", "codec.run={autoencoder}"), "model", "is no image; allowed: images of 1 channel"),
    ],
)
def test_mistakes_about_dinov2_are_one_message_each(hub, overrides, field, words):
    if words.endswith("give ("):
        hub.mkdir()
    else:
        save_dinov2(hub)
    given = [with_files(each.replace("{}", "auxiliaries.dinov2_alignment")) for each in overrides]
    ((path, text),) = mistakes_in(to_dinov2(*given)[0])
    assert path == f"auxiliaries.dinov2_alignment.{field}"
    assert words in text
    assert "\n" not in text
