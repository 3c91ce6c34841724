"""From training a classifier, and a weaker model, to images under their guidance."""

import numpy as np
import pytest
import torch
from helpers.commands import CLASSIFIER, call


def sampled(run, out, *overrides):
    result = call("sample", f"checkpoint={run}", f"out={out}", "num_samples=10", "accelerator=cpu", *overrides)
    assert result.status == 0, result.err
    with np.load(out / "samples.npz") as file:
        return file["arr_0"], file.get("arr_1")


def by(run, *others):
    return "guidance=classifier", f"guidance.classifier={run}", *others


def test_a_classifier_is_trained(classifier):
    rows = (classifier / "metrics.csv").read_text().splitlines()
    assert {"train/loss", "train/accuracy", "val/loss", "val/accuracy"} <= set(rows[0].split(","))
    state = torch.load(classifier / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert state["ema.network.pool.project.weight"].shape[0] == 10
    again = call("train", *CLASSIFIER, "schedule.beta_end=2e-3", f"output_dir={classifier.parent}", "name=classifier")
    assert "is done: it stands at step 6" in again.out


@pytest.mark.parametrize("run", [pytest.param("plain", marks=pytest.mark.slow), "labelled"])
def test_it_guides(run, classifier, tmp_path, request):
    run = request.getfixturevalue(run)
    images, labels = sampled(run, tmp_path / "guided", *by(classifier, "guidance.scale=30"))
    assert labels.tolist() == list(range(10))  # an unconditional model's images have classes now
    unguided, _ = sampled(run, tmp_path / "unguided", *by(classifier, "guidance.scale=0"))
    assert np.array_equal(unguided, sampled(run, tmp_path / "none")[0])
    assert not np.array_equal(images, unguided)
    ancestral = "sampler=ancestral", "sampler.steps=4", "timestep_spacing=leading"
    mean, _ = sampled(run, tmp_path / "mean", *by(classifier, "guidance.scale=30", "guidance.form=mean"), *ancestral)
    assert not np.array_equal(mean, sampled(run, tmp_path / "ancestral", *ancestral)[0])


@pytest.mark.slow
def test_a_weaker_model_guides(labelled, plain, tmp_path):
    away = "guidance=autoguidance", f"guidance.weaker={plain}"
    guided, _ = sampled(labelled, tmp_path / "guided", *away, "guidance.scale=4")
    unguided, _ = sampled(labelled, tmp_path / "unguided", *away, "guidance.scale=1")
    assert np.array_equal(unguided, sampled(labelled, tmp_path / "none")[0])
    assert not np.array_equal(guided, unguided)
    assert np.array_equal(sampled(labelled, tmp_path / "weaker", *away, "guidance.scale=0")[0].shape, guided.shape)


@pytest.mark.slow
def test_a_run_may_be_guided_in_training_too(classifier, train, tmp_path):
    run = train("guided_by_classifier", *by(classifier, "guidance.scale=5", "callbacks.samples.every_n_steps=3"))
    assert len(list((run / "samples").glob("*.png"))) == 2
    own, _ = sampled(run, tmp_path / "own")
    assert not np.array_equal(own, sampled(run, tmp_path / "none", "guidance=none")[0])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (by("{classifier}", "labels=12"), "labels is [12]; allowed: whole numbers from 0 to 9"),
        (by("{plain}"), "allowed: a classifier's run (task=classifier); this is a denoiser's"),
        (by("nowhere"), "guidance.classifier: is nowhere, which does not exist; allowed: a run's folder"),
        (by("{classifier}", "guidance.form=mean"), "guidance.form: is mean; allowed: score with this sampler"),
        (
            by("{classifier}", "guidance.form=average"),
            "guidance.form: is 'average'; allowed: one of mean, score",
        ),
        (("guidance=classifier",), "guidance.classifier: must be given"),
        (
            ("guidance=autoguidance", "guidance.weaker={classifier}"),
            "guidance.weaker: is {classifier}; allowed: a denoiser's run; this is a classifier's",
        ),
        (
            ("guidance=autoguidance", "guidance.weaker={labelled}"),
            "guidance.weaker: is {labelled}; allowed: an unconditional model, as the one it guides",
        ),
    ],
)
def test_a_mistake(overrides, words, classifier, labelled, plain, tmp_path):
    places = {"{classifier}": str(classifier), "{plain}": str(plain), "{labelled}": str(labelled)}

    def placed(text):
        for name, place in places.items():
            text = text.replace(name, place)
        return text

    result = call("sample", f"checkpoint={plain}", f"out={tmp_path / 'out'}", *map(placed, overrides))
    assert result.status == 1
    assert placed(words) in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "out").exists()


def test_a_classifier_of_another_noise_process(classifier, train, tmp_path):
    other = train("other_process", "schedule.beta_end=3e-3")
    result = call("sample", f"checkpoint={other}", f"out={tmp_path / 'out'}", *by(classifier))
    assert result.status == 1
    assert f"guidance.classifier: is {classifier}: it was trained on another noise process than the model" in result.err
    assert not (tmp_path / "out").exists()


def test_a_classifier_is_no_model_of_images(classifier, tmp_path):
    for command in (("sample",), ("evaluate", "likelihoods=[discrete_vlb]")):
        result = call(command[0], f"checkpoint={classifier}", f"out={tmp_path / 'out'}", *command[1:])
        assert result.status == 1
        assert "holds a classifier (task=classifier); give one of a model of images" in result.err


def test_a_classifier_needs_labels(tmp_path):
    from PIL import Image

    for index in range(8):
        Image.fromarray(np.full((8, 8, 3), index * 20, np.uint8)).save(tmp_path / f"{index}.png")
    data = ("data=image_folder", f"data.path={tmp_path}", "data.image_size=8")
    result = call("train", *CLASSIFIER, *data, f"output_dir={tmp_path / 'runs'}", "name=run")
    assert result.status == 1
    assert "classifier: needs labels, but the data has none; use data with labels" in result.err
    assert not (tmp_path / "runs" / "run" / "checkpoints").exists()
