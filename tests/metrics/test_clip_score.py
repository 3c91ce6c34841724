"""CLIP score: the mean of each pair's own, whatever the batches and the processes."""

import json

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from helpers.clip import save_tiny_clip
from helpers.extractors import TinyExtractor
from helpers.images import example_images
from helpers.measured import reference_of
from helpers.processes import context

from langevin.errors import OptionError, UserError
from langevin.evaluation.evaluation import Evaluation
from langevin.features.clip_pairs import CLIPPairs
from langevin.metrics.base import Plan
from langevin.metrics.clip_score import CLIPScore
from langevin.metrics.reference import Reference
from langevin.samplers.pipeline import SampleBatch

N = 41
PROMPTS = ["a red car", "", "b", "one of more than twelve tokens, which is cut", "z z"]
IMAGES = example_images(N, 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_tiny_clip(tmp_path_factory.mktemp("clip")))


def evaluation(folder, directory, **options):
    found = Evaluation(TinyExtractor(), {"clip_score": CLIPScore(folder, **options)}, directory, {"clip_score": {}})
    found.prepare(N, Reference(np.zeros((4, 20, 20, 3), np.uint8)), {"prompt": numbers(range(N))}, None, PROMPTS)
    found.gather()
    return found


def numbers(indices):
    return torch.tensor([index % len(PROMPTS) for index in indices])


def batches(indices, size=7):
    for part in torch.as_tensor(indices).split(size):
        yield SampleBatch(part, IMAGES[part], {"prompt": numbers(part.tolist())})


def cosines(folder, before=""):
    pairs = CLIPPairs(folder)
    return np.array(
        [float(pairs(IMAGES[index : index + 1], [before + PROMPTS[index % len(PROMPTS)]])[0]) for index in range(N)]
    )


def test_it_is_the_mean_of_each_pairs_own(folder, tmp_path):
    """A pair that does not go together counts as 0, not as less: the mean is not clamped, each is."""
    plain = cosines(folder)
    assert plain.min() < -0.01
    assert plain.max() > 0.01
    result = evaluation(folder, tmp_path).measure(batches(range(N)), None)
    ((name, value),) = result.values.items()
    pairs = CLIPPairs(folder)
    digest = pairs.digest()
    assert result.protocol["metrics"]["clip_score"]["settings"]["clip"] == pairs.record()["clip"]
    assert name == f"clip_score-{digest[:8]}"
    assert value == pytest.approx(100 * plain.clip(min=0).mean(), rel=1e-12)
    ((name, value),) = evaluation(folder, tmp_path, hessel=True).measure(batches(range(N)), None).values.items()
    assert name == f"clip_s-{digest[:8]}"
    assert value == pytest.approx(2.5 * cosines(folder, "A photo depicts ").clip(min=0).mean(), rel=1e-12)


def process(rank, world, folder, out):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{out}/rendezvous-{world}", rank=rank, world_size=world)
    values = evaluation(folder, out).measure(batches(range(rank, N, world), 5), None).values
    (out / f"{world}-{rank}.json").write_text(json.dumps(values))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_number_of_processes_does_not_matter(folder, tmp_path):
    expected = 100 * cosines(folder).clip(min=0).mean()
    for world in (2, 4):
        mp.start_processes(process, (world, folder, tmp_path), nprocs=world, start_method=context.get_start_method())
        for rank in range(world):
            ((_, value),) = json.loads((tmp_path / f"{world}-{rank}.json").read_text()).items()
            assert value == pytest.approx(expected, rel=1e-12)


def test_what_has_no_prompts_or_is_no_image_is_refused(folder, tmp_path):
    metric = CLIPScore(folder)
    with pytest.raises(UserError, match=r"metrics\.clip_score needs the prompt of each sample.*samples=PLACE prompt"):
        Evaluation(TinyExtractor(), {"clip_score": metric}, tmp_path).prepare(4, reference_of(4), {})
    with pytest.raises(UserError, match=r"metrics\.clip_score is of images, but these samples are of shape \(2,\)"):
        metric.check(Plan(4, Reference(np.zeros((4, 2), np.float32)), TinyExtractor(), prompts=["a"]))
    with pytest.raises(OptionError, match="path is nowhere"):
        CLIPScore("nowhere")
