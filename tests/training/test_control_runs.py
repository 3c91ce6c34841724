"""Runs of an adapter beside a frozen network: trained, resumed, sampled from; and what is refused."""

import numpy as np
import pytest
import torch
from helpers.commands import call
from helpers.digits import digits
from training_helpers import differing, train, trained

from langevin.checkpoint import read_checkpoint

BASE = ("callbacks=[checkpoint]", "optimizer.lr=1e-2", "lr_schedule.steps=0", "ema.max_decay=0.5", "model.dropout=0")
CONTROL = (*BASE, "model.control=true", "conditions=[class_label,hint]", "optimizer.weight_decay=0.1")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return train(tmp_path_factory.mktemp("base"), *BASE, name="base")


@pytest.fixture(scope="module")
def controlled(tmp_path_factory, base):
    return train(tmp_path_factory.mktemp("control"), *CONTROL, f"init.checkpoint={base.directory}", name="control")


def weights(run, prefix):
    state = read_checkpoint(run.last)["state_dict"]
    found = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return {name.replace("condition.parts.0.", "condition."): value for name, value in found.items()}


def test_after_six_steps_only_the_adapter_differs(base, controlled):
    frozen = weights(base, "ema.network.")
    copies = {f"control.{name}": value for name, value in frozen.items()}
    for prefix in ("model.network.", "ema.network."):
        found = weights(controlled, prefix)
        assert all(torch.equal(found.pop(name), value) for name, value in frozen.items())
        assert all(name.startswith("control.") for name in found)
        moved = [name for name, value in found.items() if name in copies and not torch.equal(value, copies[name])]
        assert len(moved) > 0.9 * len(copies.keys() & found.keys())
        assert all(found[name].any() for name in found if "zeros" in name)
    state = read_checkpoint(controlled.last)["optimizer_states"][0]["state"]
    assert len(state) == len(found), "the optimizer has nothing of the frozen weights"


def test_it_starts_as_a_copy_of_the_ema_weights(tmp_path, base):
    """A single step of next to nothing: the copies are where they started."""
    options = (*CONTROL, "optimizer.lr=1e-12", "trainer.max_steps=1")
    run, frozen = train(tmp_path, *options, f"init.checkpoint={base.directory}"), weights(base, "ema.network.")
    found = weights(run, "model.network.control.")
    copies = [name for name in found if name in frozen]
    assert len(copies) == len([name for name in found if not name.startswith(("hint.", "zeros."))])
    for name in copies:
        torch.testing.assert_close(found[name], frozen[name], rtol=0, atol=1e-7)


@pytest.mark.slow
def test_it_resumes_to_the_bit(tmp_path, base, controlled):
    options = (*CONTROL, f"init.checkpoint={base.directory}")
    train(tmp_path, *options, "trainer.max_steps=2", name="control")
    assert differing(trained(train(tmp_path, *options, name="control")), trained(controlled)) == []


def test_at_scale_zero_samples_are_the_frozen_networks(tmp_path, base, controlled):
    np.savez(tmp_path / "images.npz", arr_0=digits()[0][:4])

    def sampled(run, *overrides):
        out = tmp_path / f"{run.directory.name}{len(overrides)}{overrides[-1:]}"
        options = ("num_samples=4", "sampler=ddim", "sampler.steps=3", "labels=[3]", "accelerator=cpu", f"out={out}")
        result = call("sample", f"checkpoint={run.directory}", *options, *overrides)
        assert result.status == 0, result.err
        with np.load(out / "samples.npz") as arrays:
            return arrays["arr_0"]

    hint = f"hint.images={tmp_path / 'images.npz'}"
    plain = sampled(base)
    assert np.array_equal(sampled(controlled, hint, "hint.scale=0"), plain)
    assert not np.array_equal(sampled(controlled, hint), plain)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ((), "init.checkpoint: must be given: the run whose network is frozen beside the adapter"),
        (
            ("init.checkpoint={base}", "model.attention_resolutions=[]"),
            "all weights of the frozen network and no others, and here differ: down.0.blocks.1.",
        ),
        (
            ("init.checkpoint={base}", "model.control_channels=[16,32]"),
            "conditions.hint: is of side 16 in this network, and images are of side 8; allowed: model.control=true and "
            "model.control_channels a list of 1, since each",
        ),
        (
            ("init.checkpoint={base}", "conditions=[class_label]"),
            "model.control: is true, but no condition gives images to control by; add conditions=[hint], or take false",
        ),
        (
            ("init.checkpoint={base}", "parameterization=x"),
            "a run of the same settings, since its network is frozen, and here differ: parameterization=x (was ",
        ),
        (("init.checkpoint={base}", "model.dropout=0.1"), "model.dropout: is 0.1 beside control; allowed: 0"),
    ],
)
def test_a_mistake_is_reported(tmp_path, base, overrides, words):
    given = [override.format(base=base.directory) for override in overrides]
    assert words in train(tmp_path, *CONTROL, *given, status=1).err
