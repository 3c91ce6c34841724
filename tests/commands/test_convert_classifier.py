"""OpenAI's classifiers of noisy images as runs to guide by."""

import numpy as np
import pytest
import torch
from helpers.commands import call
from interop.peer_states import openai_classifier_state, openai_state

from commands.test_convert_command import config_of, convert, filled
from langevin.spec import DataSpec

CLASSIFIER = "--classifier_depth 1 --classifier_attention_resolutions 8"


@pytest.fixture(scope="module")
def classifier_file(tmp_path_factory):
    """OpenAI's smallest classifier, of 64x64 images, in half precision."""
    path = tmp_path_factory.mktemp("classifier") / "classifier.pt"
    torch.save({name: tensor.half() for name, tensor in filled(openai_classifier_state(CLASSIFIER)).items()}, path)
    return path


@pytest.mark.slow
def test_a_classifier_of_openai_guides_a_model_of_openai(classifier_file, tmp_path):
    flags = "--num_channels 128 --num_res_blocks 1 --channel_mult 1,1 --noise_schedule cosine"
    torch.save(filled(openai_state(flags)), tmp_path / "model.pt")
    result = convert(f"import={tmp_path / 'model.pt'}", f"flags={flags}", f"out={tmp_path / 'model'}")
    assert result.status == 0, result.err

    classifier = tmp_path / "classifier"
    place = f"import={classifier_file}", f"flags={flags} {CLASSIFIER}", f"out={classifier}"
    result = convert(*place, "classifier.dropout=0.1")
    assert result.status == 0, result.err
    assert f"langevin sample checkpoint=RUN guidance=classifier guidance.classifier={classifier}\n" in result.out
    config = config_of(classifier)
    assert set(config) == {"task", "codec", "classifier", "process", "schedule", "parameterization"}
    assert config["classifier"]["dropout"] == 0.1
    saved = torch.load(classifier / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["langevin"]["spec"] == DataSpec.of_images(3, 64, 1000).plain()
    theirs = torch.load(classifier_file, weights_only=True)["out.2.c_proj.weight"]
    assert torch.equal(saved["state_dict"]["ema.network.pool.project.weight"], theirs[:, :, 0].float())

    made = []
    for scale in (0, 1e4):
        guidance = "guidance=classifier", f"guidance.classifier={classifier}", f"guidance.scale={scale}"
        sampling = "num_samples=1", "sampler.steps=1", "labels=7", "accelerator=cpu", f"out={tmp_path / str(scale)}"
        result = call("sample", f"checkpoint={tmp_path / 'model'}", *guidance, *sampling)
        assert result.status == 0, result.err
        with np.load(tmp_path / str(scale) / "samples.npz") as file:
            assert file["arr_1"].tolist() == [7]
            made.append(file["arr_0"])
    assert not np.array_equal(*made)
    result = call("sample", f"checkpoint={classifier}", f"out={tmp_path / 'none'}")
    assert "holds a classifier" in result.err


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["sampler=ddim"], "sampler: is not used by a classifier; leave it out"),
        (["model.dropout=0.1", "conditions=[class_label]"], "model: is not used by a classifier; leave it out"),
        (["classifier=adm_64"], "classifier: is what is imported; leave it out, single fields may be set, such as"),
        (["classifier.dropuot=0.1"], "classifier.dropuot: no such option (did you mean dropout?)"),
        (
            ["classifier.channels=160"],
            "weights: do not fit the model of the config: 'time.linear1.weight' is (512, 128)",
        ),
        (["flags=--classifier_pool spatial"], "flags: --classifier_pool is 'spatial'; allowed: attention"),
        (["flags=null"], "flags: must be given for OpenAI's"),
    ],
)
def test_a_mistake_in_an_import(classifier_file, overrides, words, tmp_path):
    given = () if overrides[0].startswith("flags") else (f"flags={CLASSIFIER}",)
    result = convert(f"import={classifier_file}", *given, f"out={tmp_path / 'run'}", *overrides)
    assert result.status == 1
    assert words in result.err
    assert not (tmp_path / "run").exists()


def test_a_classifier_that_pools_otherwise(tmp_path):
    state = openai_classifier_state(CLASSIFIER, classifier_pool="adaptive")
    # One number each: the file is small.
    torch.save(
        {name: torch.zeros(()).expand(tensor.shape) for name, tensor in state.items()}, tmp_path / "classifier.pt"
    )
    result = convert(f"import={tmp_path / 'classifier.pt'}", f"flags={CLASSIFIER}", f"out={tmp_path / 'run'}")
    assert (
        "weights: 'out.2.positional_embedding' is missing; allowed: a classifier that pools by attention" in result.err
    )
