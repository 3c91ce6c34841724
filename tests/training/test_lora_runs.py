"""Runs of low-rank changes beside a frozen network: trained, resumed, sampled from, converted; and what is refused."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
import yaml
from helpers.commands import call
from training_helpers import differing, numbers, train, train_on_two, trained

from langevin.assembly.saved import load_model
from langevin.checkpoint import read_checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("peft") is None, reason="pip install 'langevin-diffusion[lora]'"),
]
BASE = ("callbacks=[checkpoint]", "optimizer.lr=1e-2", "lr_schedule.steps=0", "ema.max_decay=0.5")
LORA = (*BASE, "adapter=lora", "adapter.rank=4", "adapter.dropout=0.1", "optimizer.weight_decay=0.1")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return train(tmp_path_factory.mktemp("base"), *BASE, name="base")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, base):
    return train(tmp_path_factory.mktemp("lora"), *LORA, f"init.checkpoint={base.directory}", name="lora")


def weights(run, prefix="ema.network."):
    state = read_checkpoint(run.last)["state_dict"]
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def plain(name):
    return name.replace(".base_layer", "")


def test_after_six_steps_only_the_low_rank_weights_differ(base, tuned):
    frozen = weights(base)
    for prefix in ("model.network.", "ema.network."):
        found = weights(tuned, prefix)
        factors = {name: found.pop(name) for name in list(found) if ".lora_" in name}
        assert all(value.any() for value in factors.values())
        assert differing({plain(name): value for name, value in found.items()}, frozen) == []
    state = read_checkpoint(tuned.last)["optimizer_states"][0]["state"]
    assert len(state) == len(factors) == 16, "the optimizer has nothing of the frozen weights"


def test_it_resumes_to_the_bit(tmp_path, base, tuned):
    options = (*LORA, f"init.checkpoint={base.directory}")
    train(tmp_path, *options, "trainer.max_steps=2", name="lora")
    assert differing(trained(train(tmp_path, *options, name="lora")), trained(tuned)) == []


def test_two_processes_train_the_same(tmp_path, base):
    """Without dropout, of which every process has its own."""
    options = (*LORA, f"init.checkpoint={base.directory}", "adapter.dropout=0", "model.dropout=0", "optimizer=sgd")
    options = tuple(option for option in options if not option.startswith("optimizer.weight_decay"))
    one = train(tmp_path, *options, name="one")
    two = train_on_two(tmp_path / "two", *options, options=())
    found, expected = numbers(two.last), numbers(one.last)
    for name in (name for name in expected if ".lora_" in name):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)


def test_it_is_used_as_a_plain_run(tmp_path, base, tuned, monkeypatch):
    """Loaded, sampled from, converted and trained on without the package."""
    monkeypatch.setattr("langevin.adapters.lora.find_spec", lambda name: None)
    loaded = load_model(tuned.last).denoiser.network.state_dict()
    assert loaded.keys() == weights(base).keys()
    changed = [name for name, value in weights(base).items() if not torch.equal(value, loaded[name])]
    assert len(changed) == 8
    assert all(name.endswith((".qkv.weight", ".project.weight")) for name in changed)

    out = tmp_path / "merged.ckpt"
    result = call("convert", f"export={tuned.directory}", f"out={out}")
    assert result.status == 0, result.err
    assert f"{out}: the EMA weights of step 6; langevin sample checkpoint={out}" in result.out
    merged = read_checkpoint(out)
    assert yaml.safe_load(merged["langevin"]["config"])["adapter"] is None
    assert out.stat().st_size < 0.5 * tuned.last.stat().st_size
    for place in (tuned.directory, out):
        options = (
            "num_samples=2",
            "sampler=ddim",
            "sampler.steps=2",
            "accelerator=cpu",
            f"out={tmp_path / place.stem}",
        )
        result = call("sample", f"checkpoint={place}", *options)
        assert result.status == 0, result.err
    arrays = [np.load(tmp_path / name / "samples.npz")["arr_0"] for name in ("lora", "merged")]
    assert np.array_equal(*arrays)
    result = call("convert", f"export={tuned.directory}", f"out={tmp_path / 'weights.safetensors'}")
    assert result.status == 0, result.err

    run = train(tmp_path, *BASE, f"init.checkpoint={tuned.directory}", "optimizer.lr=1e-12", "trainer.max_steps=1")
    for name, value in weights(run).items():
        torch.testing.assert_close(value, loaded[name], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ((), "init.checkpoint: must be given: the run whose network is frozen beside the adapter"),
        (("init.checkpoint={base}", "adapter.rank=0"), "adapter.rank: is 0; allowed: a whole number, at least 1"),
        (
            ("init.checkpoint={base}", "adapter.targets=nothing"),
            "adapter.targets: is 'nothing', which no layer of this network fits; allowed: all, or a regular expression",
        ),
        (
            ("init.checkpoint={base}", "model.control=true", "model.dropout=0", "conditions=[class_label,hint]"),
            "adapter: is chosen beside model.control=true, an adapter too; allowed: one of the two",
        ),
        (
            ("init.checkpoint={base}", "model.scale_shift=true"),
            "all weights of the frozen network and no others, and here differ: down.0.blocks.0.embed.weight",
        ),
        (("init.checkpoint={base}", "conditions=[class_label,hint]"), "and here differ: first.weight"),
        (("task=autoencoder", "autoencoder=kl_tiny"), "adapter: is not used by an autoencoder; leave it out"),
    ],
)
def test_a_mistake_is_reported(tmp_path, base, overrides, words):
    given = [override.format(base=base.directory) for override in overrides]
    error = train(tmp_path, *LORA, *given, status=1).err
    assert words in error
