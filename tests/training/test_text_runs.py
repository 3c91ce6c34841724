"""Runs that are conditioned on captions."""

import shutil

import pytest
import torch
from helpers.commands import call, composed
from helpers.text_encoders import save_clip, save_t5
from training_helpers import QUIET, TINY, differing, train, trained

from langevin.assembly.captions import encode_captions
from langevin.assembly.components import make_model
from langevin.assembly.run import make_data
from langevin.assembly.text_files import complete
from langevin.conditions.text import Text
from langevin.config.stored import read_held

CAPTIONED = (*QUIET, "conditions=[class_label,text]", "captions=templates", "conditions.text.dropout=0.2")
LEARNED = (*CAPTIONED, "text=learned", "text.width=16", "text.heads=2")
OF_TEXT = "model.network.condition.parts.1."


@pytest.mark.slow
def test_a_resumed_run_trains_its_encoder_on(tmp_path):
    whole = train(tmp_path, *LEARNED, name="whole")
    half = train(tmp_path, *LEARNED, "trainer.max_steps=3")
    before, after = trained(half), trained(whole)
    name = f"{OF_TEXT}encoder.embedding.weight"
    assert not torch.equal(before[name], after[name])
    assert torch.equal(before[f"{OF_TEXT}null_text"][:3], torch.tensor([1, 2, 0]))
    assert differing(trained(train(tmp_path, *LEARNED)), after) == []


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "save"), [("clip", save_clip), ("t5", save_t5)])
def test_batches_hold_what_the_encoder_gives_afresh(kind, save, tmp_path):
    given = (
        *TINY,
        *CAPTIONED,
        f"text={kind}",
        f"text.path={save(tmp_path / kind)}",
        "text.length=20",
        "text.mask=true",
    )
    also = (f"loader.cache_dir={tmp_path}", "model=unet", "model.cross_attention=true")
    cfg, _ = composed("train", *{each.partition("=")[0]: each for each in (*given, *also)}.values())
    assert complete(cfg) == []
    for _ in range(2):  # computed, and read from the cache
        data = make_data(cfg)
        data.prepare_data()
        network = make_model(cfg, data.spec).network
        encode_captions([network], data, torch.device("cpu"))
        [condition] = (part for part in network.modules() if isinstance(part, Text))
        assert not condition.encoder.state_dict()
        batch = next(iter(data.val_dataloader()))
        captions = [data.test_set.captions.of(int(index))[0] for index in batch["index"]]
        fresh = condition.encoder.prepare(captions)
        empty = condition.encoder.prepare([""])
        for name, rows in fresh.items():
            assert batch[name].dtype == rows.dtype
            torch.testing.assert_close(batch[name], rows, rtol=2e-3, atol=2e-3)
            torch.testing.assert_close(condition.get_buffer(f"null_{name}"), empty[name][0], rtol=2e-3, atol=2e-3)
        assert len(set(captions)) > 1


@pytest.mark.slow
def test_a_frozen_encoder_is_recorded_and_not_stored(tmp_path):
    clip = save_clip(tmp_path / "clip")
    given = (*CAPTIONED, "text=clip", "text.length=20", f"loader.cache_dir={tmp_path / 'cache'}")
    run = train(tmp_path, *given, f"text.path={clip}", "trainer.max_steps=3")
    text = read_held(run.directory / "config.yaml").text
    assert len(text.weights) == 64
    assert text.channels == 16
    state = trained(run)
    assert {name for name in state if name.startswith(OF_TEXT)} == {
        f"{OF_TEXT}{name}" for name in ("pooled.weight", "pooled.bias", "null_text", "null_text_pooled")
    }
    assert state[f"{OF_TEXT}null_text_pooled"].abs().sum() > 0

    moved = clip.rename(tmp_path / "moved")
    sampled = call("sample", f"checkpoint={run.directory}", "num_samples=2", f"out={tmp_path / 'samples'}", "labels=3")
    assert sampled.status == 0, sampled.err  # without a prompt, and without the encoder
    prompted = ("sample", f"checkpoint={run.directory}", "num_samples=2", "prompt=a seven", f"out={tmp_path / 'seven'}")
    gone = call(*prompted)
    assert gone.status == 1
    assert f"error: text.path is {clip}, which is no folder" in gone.err
    found = call(*prompted, f"text.path={moved}")
    assert found.status == 0, found.err
    train(tmp_path, *given, f"text.path={moved}")  # resumes
    shutil.rmtree(moved)
    other = save_clip(tmp_path / "other", seed=1)
    refused = train(tmp_path, *given, f"text.path={other}", status=1)
    assert f"text.weights: {text.weights} in the run" in refused.err
