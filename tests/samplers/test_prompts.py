"""Prompts in turn, and what guidance leads away from."""

import pytest
import torch
from helpers.texts import Captioned

from langevin.codecs.identity import Identity
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.parameterization import X
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.schedules.cosine import Cosine
from langevin.guidance.classifier_free import ClassifierFree
from langevin.guidance.guidance import Guided
from langevin.modalities.image import ImageModality
from langevin.samplers.ddim import DDIM
from langevin.samplers.generate import SamplePipeline
from langevin.samplers.prompts import KEPT, Prompts, Texts, captions_of
from langevin.samplers.requests import Labels
from langevin.samplers.thresholding import Static
from langevin.samplers.timestep_spacing import Trailing

ASKED = Texts(["a three", "b", "c"], "the record")


@pytest.fixture
def model():
    return Denoiser(Captioned(), GaussianProcess(Cosine(20), X()))


def requests(model, asked=ASKED, negative=None, num_classes=None):
    return Prompts(Labels(num_classes), asked, model.network.condition.encoder.prepare, negative)


def made(model, asked, indices=range(7), batch_size=7, scale=3.0):
    guidance = ClassifierFree(scale)
    sampler = DDIM(Trailing(), Static(), 4)
    guide = lambda denoiser, device: Guided(denoiser, guidance)  # noqa: E731
    generator = SamplePipeline(sampler, guide, (1, 4, 4), ImageModality(), Identity(), asked)
    return torch.cat([batch.samples for batch in generator(model, indices, 0, batch_size, "cpu")])


def test_sample_i_has_the_prompt_i_in_turn(model):
    asked = requests(model, num_classes=2)
    columns = asked.model_cond(model, [5, 0, 4], 0, "cpu")
    assert sorted(columns) == ["label", "text", "text_mask"], "what metrics alone look at is none of the model's"
    expected = model.network.condition.encoder.prepare(["c", "a three", "b"])
    assert all(torch.equal(columns[name], expected[name]) for name in expected)
    known = asked.cond([5, 0, 4])
    assert (known["prompt"].tolist(), known["label"].tolist()) == ([2, 0, 1], [1, 0, 0])
    assert captions_of(asked, known) == ["c", "a three", "b"]
    assert captions_of(Labels(2), known) is None
    assert asked.record() == {"labels": [0, 1], "prompts": "the record"}


def test_few_texts_are_encoded_once_and_many_by_need(model):
    encoder = model.network.condition.encoder
    encoder.asked.clear()
    asked = requests(model, negative=Texts(["b", "d"], None))
    for indices in ([0, 3], [3, 4, 1], range(30)):
        asked.model_cond(model, indices, 0, "cpu")
    assert encoder.asked == [["a three", "b", "c", "d"]]
    encoder.asked.clear()
    many = requests(model, Texts([str(number) for number in range(3 * KEPT)], None))
    for start in range(0, 3 * KEPT, KEPT):
        columns = many.model_cond(model, range(start, start + KEPT), 0, "cpu")
        assert len(columns["text"]) == KEPT
    assert [len(texts) for texts in encoder.asked] == [KEPT] * 3
    assert len(many._kept) == KEPT


def test_a_negative_prompt_takes_the_place_of_the_empty_text(model):
    """The empty one is plain guidance to the bit; another is ``n + s (c - n)``, computed here by hand."""
    plain = made(model, requests(model))
    assert torch.equal(plain, made(model, requests(model, negative=Texts([""], None))))
    assert not torch.equal(plain, made(model, requests(model, negative=Texts(["away"], None))))
    encoder, x_t, t = model.network.condition.encoder, torch.randn(2, 1, 4, 4), torch.tensor(0.4).double()
    negative = Texts(["away", "and"], None)
    cond = requests(model, negative=negative).model_cond(model, [0, 1], 0, "cpu")
    found = Guided(model, ClassifierFree(2.5))(x_t, t, cond).raw
    c, n = (model(x_t, t, encoder.prepare(texts)).raw for texts in (["a three", "b"], ["away", "and"]))
    torch.testing.assert_close(found, n + 2.5 * (c - n), rtol=1e-5, atol=1e-6)


def test_a_sample_does_not_depend_on_its_batch(model):
    negative = Texts(["away", "and"], None)
    whole = made(model, requests(model, negative=negative))
    assert len(whole.flatten(1).unique(dim=0)) == 7
    for size in (1, 3):
        parts = made(model, requests(model, negative=negative), batch_size=size)
        assert (parts.int() - whole.int()).abs().max() <= 1
    part = made(model, requests(model, negative=negative), indices=[6, 2])
    assert (part.int() - whole[[6, 2]].int()).abs().max() <= 1
