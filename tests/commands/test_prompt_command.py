"""`langevin sample prompt=...` and `langevin evaluate` of a model that is conditioned on texts."""

import dataclasses
import json

import numpy as np
import pytest
from helpers.clip import save_tiny_clip
from helpers.commands import TINY, call, composed
from helpers.digits import digits
from helpers.saved import save_untrained

import langevin
from langevin.spec import DataSpec

MODEL = ("data=digits", "captions=templates", "model=unet_small", "model.cross_attention=true", *TINY)
TEXT = ("conditions=[text]", "text=learned", "text.width=16", "text.depth=1", "text.length=8")
GUIDED = ("guidance=classifier_free", "guidance.scale=3")
SPEC = dataclasses.replace(DataSpec.of_images(1, 8, 10), vocabulary=("a", "three", "seven", "bright", "one", "of"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Untrained models: of texts, of texts and classes, of classes."""
    folder = tmp_path_factory.mktemp("runs")
    conditions = {
        "text": TEXT,
        "both": ("conditions=[class_label,text]", *TEXT[1:]),
        "label": ("conditions=[class_label]",),
        "other": (*TEXT[:-1], "text.length=7"),
    }
    for name, given in conditions.items():
        (folder / name / "checkpoints").mkdir(parents=True)
        model = MODEL if name != "label" else [each for each in MODEL if "cross" not in each and "captions" not in each]
        save_untrained(folder / name / "checkpoints" / "last.ckpt", composed("train", *model, *given)[0], SPEC)
    return folder


def sampled(run, out, *overrides):
    result = call("sample", f"checkpoint={run}", f"out={out}", "accelerator=cpu", "num_samples=5", *overrides)
    assert result.status == 0, result.err
    with np.load(out / "samples.npz") as arrays:
        return {name: arrays[name] for name in arrays.files} | {"record": json.loads(str(arrays["record"]))}


def test_samples_have_the_prompts_in_turn(runs, tmp_path):
    asked = "prompt=[a three, 'a bright seven, (or so): it\\'s']"
    made = sampled(runs / "text", tmp_path / "a", asked, "png=true")
    texts = ["a three", "a bright seven, (or so): it's"]
    assert json.loads(str(made["prompts"])) == [texts[index % 2] for index in range(5)]
    assert made["record"]["samples"]["prompts"] == texts
    assert (tmp_path / "a" / "png" / "000001-a_bright_seven_or_so_it_s.png").is_file()
    one = sampled(runs / "text", tmp_path / "b", f"prompt={texts[1]}")["arr_0"]
    assert np.abs(one[[1, 3]].astype(int) - made["arr_0"][[1, 3]]).max() <= 1
    assert not np.array_equal(one[0], made["arr_0"][0])
    again = call("sample", f"checkpoint={runs / 'text'}", f"out={tmp_path / 'b'}", "num_samples=5", "prompt=a three")
    assert "samples.prompts: ['a bright seven, (or so): it's'] there, ['a three'] now" in again.err.replace('"', "'")


@pytest.mark.slow
def test_a_file_stands_by_its_digest(runs, tmp_path):
    (tmp_path / "p.txt").write_text("a three\na seven\n")
    (tmp_path / "q.jsonl").write_text('"a three"\n{"text": "a seven"}\n')
    first, second = (
        sampled(runs / "text", tmp_path / name[0], f"prompt={tmp_path / name}") for name in ("p.txt", "q.jsonl")
    )
    record = first["record"]["samples"]["prompts"]
    assert record == second["record"]["samples"]["prompts"]
    assert (record["number"], len(record["sha256"])) == (2, 64)
    assert np.array_equal(first["arr_0"], second["arr_0"])


def test_negative_prompts(runs, tmp_path):
    run = runs / "text"
    plain = sampled(run, tmp_path / "a", "prompt=a three", *GUIDED)
    empty = sampled(run, tmp_path / "b", "prompt=a three", "negative=''", *GUIDED)
    other = sampled(run, tmp_path / "c", "prompt=a three", "negative=a seven", *GUIDED)
    assert np.array_equal(plain["arr_0"], empty["arr_0"])
    assert not np.array_equal(plain["arr_0"], other["arr_0"])
    assert other["record"]["samples"]["negative"] == ["a seven"]


@pytest.mark.slow
def test_python_makes_the_same(runs, tmp_path):
    (tmp_path / "p.txt").write_text("a three\na seven\n")
    made = sampled(
        runs / "both", tmp_path / "a", f"prompt={tmp_path / 'p.txt'}", "negative=of", "labels=[3,4]", *GUIDED
    )
    run = langevin.load(runs / "both")
    given = {"labels": [3, 4], "negative": "of", "guidance": 3, "device": "cpu"}
    samples = run.sample(5, prompt=tmp_path / "p.txt", **given)
    assert np.array_equal(samples.samples, made["arr_0"])
    assert samples.labels.tolist() == made["arr_1"].tolist() == [3, 4, 3, 4, 3]
    assert samples.prompts == samples.classes == ["a three", "a seven", "a three", "a seven", "a three"]
    samples.save(tmp_path / "b")
    with np.load(tmp_path / "b" / "samples.npz") as saved:
        assert json.loads(str(saved["prompts"])) == samples.prompts
    assert (run.takes_prompts, langevin.load(runs / "label").takes_prompts) == (True, False)
    with pytest.raises(langevin.UserError, match="negative: is what guidance leads away from"):
        run.sample(2, prompt="a", negative="b", device="cpu")


@pytest.mark.slow
def test_given_images_are_edited_inverted_and_restored_by_prompts(runs, tmp_path):
    images, labels = digits()
    np.savez(tmp_path / "given.npz", arr_0=images[:5], arr_1=labels[:5])
    given = f"{tmp_path / 'given.npz'}"
    ways = {
        "edit": (f"edit.images={given}",),
        "invert": (f"invert.images={given}", "sampler=ddim", "sampler.steps=2"),
        "restore": ("restoration=ddnm", "operators=[average]", f"measurement.originals={given}"),
    }
    for name, options in ways.items():
        three, seven = (
            sampled(runs / "text", tmp_path / f"{name}-{text}", f"prompt=a {text}", *options)
            for text in ("three", "seven")
        )
        assert three["record"]["samples"]["prompts"] == ["a three"]
        assert not np.array_equal(three["arr_0"], seven["arr_0"]), name


@pytest.mark.parametrize(
    ("run", "overrides", "words"),
    [
        (
            "label",
            ["prompt=a three"],
            "prompt: is given, and the model is not trained with conditions=[text]; leave it out",
        ),
        ("text", ["prompt=nowhere.txt"], "prompt=nowhere.txt: cannot be read"),
        ("text", ["prompt=[a,null]"], "prompt: is ['a', None]; allowed: a text or null or a list, each item a text"),
        ("text", ["prompt=[]"], "prompt: is an empty list; allowed: a text, a list of texts, or a file of such"),
        (
            "text",
            ["prompt=a", "negative=b"],
            "negative: is what guidance leads away from; allowed with guidance=classifier",
        ),
        ("text", ["negative=b", "guidance=none"], "negative: goes with prompt=TEXT"),
        (
            "text",
            [*GUIDED],
            "prompt: must be given, since guidance leads towards it; guidance=none makes samples without",
        ),
        ("both", ["prompt=[a,b]", "labels=[1,2,3]"], "labels: has 3, and prompt has 2; allowed: as many, or one"),
        ("text", ["prompt=a", "labels=3"], "the model is not conditioned on labels, so leave labels out"),
    ],
    ids=lambda value: " ".join(value)[:20] if isinstance(value, list) else value[:10],
)
def test_a_mistake_is_reported(runs, tmp_path, run, overrides, words):
    result = call("sample", f"checkpoint={runs / run}", f"out={tmp_path}", "accelerator=cpu", *overrides)
    assert result.status == 1
    assert words in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "samples.npz").exists()


def test_a_weaker_model_reads_the_same_words(runs, tmp_path):
    """Else it would take the numbers of words for those of others."""
    weaker = ("guidance=autoguidance", f"guidance.weaker={runs / 'other'}")
    result = call("sample", f"checkpoint={runs / 'text'}", f"out={tmp_path}", "accelerator=cpu", "prompt=a", *weaker)
    assert result.status == 1
    assert f"guidance.weaker: is {runs / 'other'}; allowed: one whose encoder of text has the model's" in result.err


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["metrics=[class_accuracy]", "negative=a"], "negative: goes with prompt=TEXT; leave it out"),
        (["likelihoods=[discrete_vlb]", "prompt=a"], "prompt: is not used by likelihoods, which sample nothing"),
    ],
)
def test_texts_that_an_evaluation_has_no_use_for(runs, overrides, words):
    result = call("evaluate", f"checkpoint={runs / 'text'}", "accelerator=cpu", *overrides)
    assert result.status == 1
    assert words in result.err


def evaluated(out, *overrides):
    result = call("evaluate", f"out={out}", "accelerator=cpu", *overrides)
    assert result.status == 0, result.err
    return json.loads((out / "metrics.json").read_text())


@pytest.mark.slow
def test_a_model_is_evaluated_on_the_captions_of_held_out_images(runs, tmp_path):
    """By CLIP score and by their classes; given prompts take their place; stored samples have their own."""
    clip = f"metrics.clip_score.path={save_tiny_clip(tmp_path / 'clip')}"
    run = (f"checkpoint={runs / 'text'}", "num_samples=20")
    found = evaluated(tmp_path / "a", *run, "metrics=[clip_score,class_accuracy]", clip)
    record = found["protocol"]["samples"]
    assert record["prompts"]["split"] == "test"
    assert record["labels"] == "their own"
    given = evaluated(tmp_path / "b", *run, "metrics=[clip_score]", clip, "prompt=a three")
    assert given["protocol"]["samples"]["prompts"] == ["a three"]
    sampled(runs / "text", tmp_path / "c", "prompt=a three", "num_samples=20", "batch_size=20")
    options = (f"samples={tmp_path / 'c'}", "data=digits", "metrics=[clip_score]", clip)
    stored = evaluated(tmp_path / "d", *options)
    assert stored["metrics"] == given["metrics"] != found["metrics"]
    other = evaluated(tmp_path / "e", *options, "prompt=[a seven]")
    assert other["metrics"] != stored["metrics"]


@pytest.mark.slow
def test_a_run_shows_and_measures_held_out_captions(tmp_path):
    steps = ("trainer.val_check_interval=2", "trainer.limit_val_batches=1", "likelihoods=[discrete_vlb]")
    metrics = ("metrics=[class_accuracy]", "evaluation.num_samples=12", "evaluation.every_n_steps=2")
    result = call("train", *MODEL, *TEXT, *steps, *metrics, f"output_dir={tmp_path}", "name=r")
    assert result.status == 0, result.err
    (protocol,) = (tmp_path / "r" / "evaluations").glob("protocol-*.json")
    record = json.loads(protocol.read_text())["samples"]
    assert record["prompts"]["split"] == "test"
    run = langevin.load(tmp_path / "r")
    result = call(
        "evaluate", f"checkpoint={tmp_path / 'r'}", "likelihoods=[discrete_vlb]", "num_images=8", "accelerator=cpu"
    )
    assert result.status == 0, result.err
    assert run.evaluate("class_accuracy", 12, device="cpu").protocol["samples"]["prompts"] == record["prompts"]
