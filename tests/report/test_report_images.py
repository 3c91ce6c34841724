import base64
import io

import numpy as np
import pytest
from PIL import Image

from langevin.images import write_png
from langevin.report import images
from langevin.report.images import fitting, images_of, native, spread


def noise(seed, side=16):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def opened(content):
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("scale", [1, 2, 6, 8])
def test_images_lose_their_enlargement_and_nothing_else(tmp_path, scale):
    shown = noise(0)
    write_png(tmp_path / "a.png", shown, scale)
    np.testing.assert_array_equal(opened(native(tmp_path / "a.png")), shown)


def test_what_only_looks_enlarged(tmp_path):
    shown = noise(0).repeat(4, axis=0).repeat(4, axis=1)
    shown[0, 0] += 1
    write_png(tmp_path / "a.png", shown)
    np.testing.assert_array_equal(opened(native(tmp_path / "a.png")), shown)


@pytest.mark.parametrize("number", range(1, 12))
def test_steps_are_spread_evenly(number):
    steps = [100 * step for step in range(1, 11)]
    chosen = spread(steps, number)
    assert len(chosen) == min(number, 10)
    assert set(chosen) <= set(steps)
    assert chosen[-1] == 1000
    if number > 1:
        gaps = np.diff(chosen)
        assert chosen[0] == 100
        assert gaps.max() - gaps.min() <= 100


def make(folder, **kinds):
    for kind, steps in kinds.items():
        for step, seed in steps.items():
            write_png(folder / "samples" / f"{kind}_{step:08d}.png", noise(seed))
    return images_of(folder)


def test_each_run_shows_its_newest_image_by_then(tmp_path):
    first = make(tmp_path / "a", samples={100: 0, 200: 1, 300: 2}, trajectory={300: 3})
    second = make(tmp_path / "b", samples={150: 4, 200: 1})
    (tmp_path / "a" / "samples" / "notes.png").write_bytes(b"foreign")
    (samples, trajectory), png, faults = fitting([first, second, {}], None, 10**6)
    assert not faults
    assert samples["steps"] == [100, 150, 200, 300]
    assert [[step for _, step in run] for run in samples["shown"]] == [
        [100, 100, 200, 300],
        [None, 150, 200, 200],
        [None] * 4,
    ]
    assert trajectory["steps"] == [300]
    assert [[step for _, step in run] for run in trajectory["shown"]] == [[300], [None], [None]]
    assert len(png) == 5, "the same image once"
    for run, folder in zip(samples["shown"], ("a", "b"), strict=False):
        for name, step in run:
            if name is not None:
                with Image.open(tmp_path / folder / "samples" / f"samples_{step:08d}.png") as image:
                    np.testing.assert_array_equal(opened(base64.b64decode(png[name])), np.asarray(image))


def test_as_many_as_have_room(tmp_path):
    found = make(tmp_path, samples={step: step for step in range(1, 31)})
    one = len(base64.b64encode(native(found["samples"][1])))
    for room, most in ((100 * one, 30), (10.5 * one, 10), (3.5 * one, 3), (one / 2, 1)):
        (samples,), png, _ = fitting([found], None, int(room))
        assert samples["of"] == 30
        assert most - 1 <= len(samples["steps"]) <= most
        assert len(samples["steps"]) >= 1
        assert sum(map(len, png.values())) <= max(room, one + 4)
    (samples,), _, _ = fitting([found], 7, 0)
    assert len(samples["steps"]) == 7, "who asks for them gets them"


@pytest.mark.parametrize("steps", [10, 200])
def test_of_many_runs_few_more_images_are_encoded_than_shown(tmp_path, monkeypatch, steps):
    found = [make(tmp_path / str(run), samples={step: 7 * run + step for step in range(steps)}) for run in range(7)]
    one = len(base64.b64encode(native(found[0]["samples"][1])))
    encoded = []
    monkeypatch.setattr(images, "native", lambda path: encoded.append(path) or native(path))
    (samples,), _, _ = fitting(found, None, int(15.5 * one))
    assert len(samples["steps"]) == 2
    assert len(encoded) <= 7 * (1 + 2)
    assert len(set(encoded)) == len(encoded)


@pytest.mark.parametrize(("height", "width", "scale"), [(128, 192, 64), (96, 96, 48), (10, 15, 5), (7, 11, 1)])
def test_an_image_of_one_colour_is_shrunk_by_the_largest_scale(tmp_path, height, width, scale):
    write_png(tmp_path / "a.png", np.full((height, width, 3), 9, np.uint8))
    assert opened(native(tmp_path / "a.png")).shape == (height // scale, width // scale, 3)


def test_a_damaged_image(tmp_path):
    found = make(tmp_path, samples={100: 0, 200: 1})
    path = found["samples"][200]
    for content in (path.read_bytes()[:60], b"", b"no image"):
        path.write_bytes(content)
        (samples,), png, (fault,) = fitting([found], None, 10**6)
        assert samples["shown"][0][1] == (None, 200)
        assert len(png) == 1
        assert str(path) in fault
