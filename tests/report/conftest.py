"""A sweep, its page, and the browser that shows it: `apt-get install chromium`, or `playwright install chromium`."""

import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from report_helpers import evaluated, make_protocol, make_run, protocol_in_training

from langevin.config.identity import digest
from langevin.report.__main__ import report
from langevin.sessions import session

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


def rows_of(seed, protocol, last=200):
    generator = np.random.default_rng(seed)
    for step in range(1, last + 1):
        row = {"step": step, "train/loss": 1 / step + 0.1 * generator.random(), "train/grad_norm": generator.random()}
        row |= {"train/learning_rate": 1e-3, "train/images_per_second": 100 + generator.random()}
        if step % 50 == 0:
            row |= {"val/loss": 2 / step, "eval/fid@50": 1000 / (step + seed), "eval/protocol": protocol}
        yield row


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two schedules at two learning rates, of which one run goes half the way."""
    folder = tmp_path_factory.mktemp("sweep") / "runs"
    record = make_protocol()
    for seed, (schedule, rate) in enumerate([("linear", 1e-4), ("linear", 1e-2), ("cosine", 1e-4), ("cosine", 1e-2)]):
        last = 100 if seed == 3 else 200
        images = {("samples", step): np.full((8, 8, 3), seed + step, np.uint8) for step in range(50, last + 1, 50)}
        run = make_run(
            folder,
            f"run{seed}",
            f"schedule={schedule}",
            change={"optimizer.lr": rate, "batch_size": 64 if seed else 32, "trainer.max_steps": 200},
            rows=list(rows_of(seed, digest(record), last)),
            images=images,
            step=last,
        )
        protocol_in_training(run, record)
        with session(run, lambda: last, command=f"python train.py seed={seed}", hardware="1 x GPU <b>", code="1.0"):  # noqa: B023
            pass
    evaluated(folder / "run0" / "evaluations" / "late", 3.5, make_protocol(steps=50), step=200)
    return folder


@pytest.fixture(scope="module")
def page_of_sweep(sweep):
    out = sweep.parent / "report.html"
    report([sweep], out, None, [])
    return out


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    with sync_api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        path = next(filter(None, map(shutil.which, names)), own if Path(own).exists() else None)
        if path is None:
            pytest.skip("no Chromium: apt-get install chromium, or playwright install chromium")
        browser = playwright.chromium.launch(executable_path=path, args=[*FLAGS, "--disable-sync", "--no-first-run"])
        yield browser
        browser.close()


@contextmanager
def visiting(browser):
    """Opens pages from the disk, without a network; sees that they ask for nothing and that nothing goes wrong."""
    seen, contexts = [], []

    def visit(path, width=1200):
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: seen.append(request.url))
        page.on("console", lambda message: seen.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: seen.append(f"error: {error}"))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-drawn]", timeout=60_000)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert [each for each in seen if not each.startswith(("file:", "data:", "blob:"))] == []


@pytest.fixture
def visit(browser):
    with visiting(browser) as visit:
        yield visit


@pytest.fixture(scope="module")
def still(browser, page_of_sweep):
    """The page of the sweep, for tests that do not disturb each other."""
    with visiting(browser) as visit:
        yield visit(page_of_sweep)
