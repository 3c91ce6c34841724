"""The page, in a headless Chromium, served as a user does."""

import base64
import io
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from urllib.parse import urlsplit

import numpy as np
import pytest
from helpers.browser import chromium
from PIL import Image

import langevin

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("gradio") is None, reason="the package gradio is not installed"),
]


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@contextmanager
def served(*arguments):
    """The command in a process of its own; gives it, and the page's address."""
    command = [sys.executable, "-m", "langevin.ui", *map(str, arguments), "--port", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            line = process.stdout.readline()
            assert line.endswith("(Ctrl-C stops it)\n"), process.stderr.read()
            yield process, line.split()[0]
        finally:
            process.kill()


@contextmanager
def visiting(browser, address):
    """The page; sees that it asks no other host for anything, and that its scripts do not fail."""
    seen, faults = [], []
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.on("request", lambda request: seen.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(address)
    page.get_by_role("button", name="Sample").wait_for()
    yield page
    context.close()
    hosts = {urlsplit(url).netloc for url in seen if not url.startswith(("data:", "blob:"))}
    assert hosts == {urlsplit(address).netloc}
    assert faults == []


def fill(page, **controls):
    for label, value in controls.items():
        page.get_by_label(label).and_(page.locator("input:not([type=range]), textarea")).fill(str(value))


def press(page):
    """Press Sample, and wait until the samples are others than before."""
    before = page.locator(".runs").inner_html()
    page.get_by_role("button", name="Sample").click()
    page.wait_for_function(
        "(before) => document.querySelector('.runs img') && document.querySelector('.runs').innerHTML !== before",
        arg=before,
        timeout=60_000,
    )


def images(page):
    """The samples of each run, as the page shows them."""
    found = page.locator(".runs section figure:first-child img").all()
    data = [base64.b64decode(each.get_attribute("src").partition(",")[2]) for each in found]
    return [np.asarray(Image.open(io.BytesIO(each))) for each in data]


def wanted(run, columns, **arguments):
    return np.asarray(Image.open(io.BytesIO(run.sample(**arguments, device="cpu").figure(columns).png())))


def test_the_page_shows_the_samples_of_the_run(browser, labelled):
    run = langevin.load(labelled)
    with served(labelled) as (process, address), visiting(browser, address) as page:
        assert urlsplit(address).hostname == "127.0.0.1"
        fill(page, Samples=6)
        press(page)
        (first,) = images(page)
        assert np.array_equal(first, wanted(run, 6, n=6))
        assert "2 evaluations of the network" in page.inner_text(".runs figcaption >> nth=0")
        assert page.locator(".runs figure").count() == 2, "the samples, and how they come out of noise"
        fill(page, Seed=5)
        press(page)
        (other,) = images(page)
        assert not np.array_equal(other, first)
        assert np.array_equal(other, wanted(run, 6, n=6, seed=5))
        fill(page, Seed=0)
        press(page)
        assert np.array_equal(images(page)[0], first)

        page.get_by_label("Class").click()
        page.get_by_role("option", name="<b>two</b>").click()
        page.get_by_label("Sampler").click()
        page.get_by_role("option", name="euler", exact=True).click()
        page.wait_for_function("[...document.querySelectorAll('input, textarea')].some((each) => each.value === '50')")
        fill(page, Steps=3)
        press(page)
        assert np.array_equal(images(page)[0], wanted(run, 6, n=6, labels=2, sampler="euler", steps=3))

        for steps, message in (("0", "steps: is 0; allowed: a whole number, at least 1"), ("<i>x", "steps: is '<i>x'")):
            fill(page, Steps=steps)
            page.get_by_role("button", name="Sample").click()
            page.get_by_text(message).wait_for(timeout=30_000)
        assert page.locator(".runs img").count() == 2, "what was there stays"

        # It ends at once while it samples, and with a page that is open.
        fill(page, Steps=1000, Samples=100)
        page.get_by_role("button", name="Sample").click()
        page.wait_for_timeout(1500)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stdout.read() == "stopped\n"
        assert "Traceback" not in process.stderr.read()


def test_two_runs_side_by_side(browser, labelled, own_guidance):
    runs = [langevin.load(labelled), langevin.load(own_guidance)]
    with served(labelled, own_guidance) as (process, address), visiting(browser, address) as page:
        fill(page, Samples=4, Seed=3)
        press(page)
        own = [wanted(run, 4, n=4, seed=3) for run in runs[:1]] + [wanted(runs[1], 4, n=4, seed=3, guidance=1.0)]
        assert all(np.array_equal(*each) for each in zip(images(page), own, strict=True))
        left, right = (each.bounding_box() for each in page.locator(".runs section").all())
        assert left["x"] + left["width"] <= right["x"]
        assert left["y"] == right["y"]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_a_host_that_others_reach_is_pointed_out(labelled):
    with served(labelled, "--host", "0.0.0.0") as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert re.search(r"^warning: --host 0\.0\.0\.0: anyone who can reach port \d+", process.stderr.read(), re.M)
