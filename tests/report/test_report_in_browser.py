"""The page, in a headless Chromium: `apt-get install chromium`, or `playwright install chromium`."""

import base64
import csv
import io
import json
import math
import shutil
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_helpers import make_run

from langevin.report.__main__ import report

sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
NASTY = '</script><script>window.ran = 1</script><img src=x onerror="window.ran = 1"><b>bold</b>&amp;'


@pytest.fixture(scope="module")
def browser():
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


def logged(sweep, run, column):
    with (sweep / f"run{run}" / "metrics.csv").open(newline="") as file:
        return [(int(row["step"]), float(row[column])) for row in csv.DictReader(file) if row[column]]


def drawn(page, section, title):
    """What Plotly draws in the chart of this title: x, y and the run of each trace."""
    return page.evaluate(
        """([section, title]) => {
          const figure = [...document.querySelectorAll(`${section} figure`)].find(
            (each) => each.querySelector("figcaption").firstChild.textContent === title);
          return figure.querySelector(".plot").data.map(({ x, y, meta, mode }) => ({ x, y, run: meta.run, mode }));
        }""",
        [section, title],
    )


def settle(page):
    """Wait until what was asked for is drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


COLUMNS = ("train/loss", "val/loss", "train/grad_norm", "train/images_per_second")


def test_the_numbers_drawn_are_those_logged(visit, page_of_sweep, sweep):
    page = visit(page_of_sweep)
    for scale, choice in (((32, 64, 64, 64), None), ((1, 1, 1, 1), "steps")):
        if choice:
            page.get_by_label(choice, exact=True).check()
            settle(page)
        for column in COLUMNS:
            traces = drawn(page, "#curves", column)
            assert [trace["run"] for trace in traces] == [0, 1, 2, 3]
            for run, trace in enumerate(traces):
                expected = [[step * scale[run], value] for step, value in logged(sweep, run, column)]
                assert [list(point) for point in zip(trace["x"], trace["y"], strict=True)] == expected
        for run, trace in enumerate(drawn(page, "#metrics", "fid@50 (steps=20 evaluations=20)")):
            expected = [[step * scale[run], value] for step, value in logged(sweep, run, "eval/fid@50")]
            assert [list(point) for point in zip(trace["x"], trace["y"], strict=True)] == expected
        (other,) = drawn(page, "#metrics", "fid@50 (steps=50 evaluations=50)")
        assert (other["run"], other["x"], other["y"]) == (0, [200 * scale[0]], [3.5])
    assert "fid@50 was computed in 2 ways, which are shown separately" in page.inner_text("#reasons")


def test_receipts_are_shown(visit, page_of_sweep):
    page = visit(page_of_sweep)
    assert "Hardware: 1 x GPU <b>." in page.inner_text("#notes")
    page.get_by_text("Commands, versions of the code").click()
    rows = [row.inner_text().split("\t") for row in page.locator("#receipts tbody tr").all()]
    assert [row[1:] for row in rows] == [[f"python train.py seed={seed}", "1.0", "0:00:00"] for seed in range(4)]


def test_every_panel_has_its_marks(still):
    plots = still.locator(".plot")
    assert plots.count() == 5 + 2 + 1
    for plot in plots.all():
        lines = plot.locator(".scatterlayer .trace")
        assert lines.count() == (1 if "steps=50" in plot.locator("..").inner_text() else 4)
        path = lines.first.locator("path").first
        assert len(path.get_attribute("d")) > 3
        box = plot.bounding_box()
        assert box["width"] > 200
        assert box["height"] > 200
    assert still.locator("#runs tbody tr").count() == 4
    cells = [cell.inner_text() for cell in still.locator("#runs tbody tr").nth(3).locator("th, td").all()]
    assert cells[:4] == ["run3", "unfinished", "100 of 200", "6,400"]
    values = [cell.inner_text() for cell in still.locator("#values tbody tr").first.locator("th, td").all()]
    assert values == ["run0", "0.01", "5", "3.5"]
    assert still.locator("#images img").count() == 4
    options = set(still.locator("#config > .scroll th[scope=row]").all_inner_texts())
    assert {"optimizer.lr", "batch_size", "schedule._target_"} <= options
    assert "seed" not in options
    still.locator("#config summary").click()
    assert still.locator("#config details").get_by_role("rowheader", name="seed", exact=True).is_visible()
    assert still.title() == "4 runs of runs"


def test_the_slider_changes_the_images(still):
    slider = still.get_by_role("slider", name="Step")

    def shown():
        return [
            (int(np.asarray(Image.open(io.BytesIO(base64.b64decode(src.partition(",")[2]))))[0, 0, 0]), alt)
            for image in still.locator("#images img").all()
            for src, alt in [(image.get_attribute("src"), image.get_attribute("alt"))]
        ]

    assert [gray for gray, _ in shown()] == [200, 201, 202, 103]  # the last has come half the way
    slider.focus()
    still.keyboard.press("ArrowLeft")
    assert [gray for gray, _ in shown()] == [150, 151, 152, 103]
    assert slider.get_attribute("aria-valuetext") == "step 150"
    still.keyboard.press("Home")
    found = shown()
    assert [gray for gray, _ in found] == [50, 51, 52, 53]
    assert all(alt.startswith("samples of ") and alt.endswith(" at step 50") for _, alt in found)
    assert len({alt for _, alt in found}) == 4


def test_smoothing_is_the_mean_of_the_neighbourhood(visit, page_of_sweep, sweep):
    page = visit(page_of_sweep)
    slider = page.get_by_role("slider", name="Smoothing")
    slider.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    settle(page)
    assert "2%" in page.inner_text("#smoothing-text")
    traces = drawn(page, "#curves", "train/loss")
    assert [trace["run"] for trace in traces] == [0, 0, 1, 1, 2, 2, 3, 3], "the values and their means"
    assert len(drawn(page, "#curves", "val/loss")) == 4
    assert len(drawn(page, "#curves", "train/learning_rate")) == 4
    for run, batch_size in ((0, 32), (3, 64)):
        steps, values = np.array(logged(sweep, run, "train/loss")).T
        x = steps * batch_size
        weights = np.exp(-np.abs(x[:, None] - x) / (200 * 64 * 0.02))
        trace = traces[2 * run + 1]
        np.testing.assert_allclose(trace["x"], x)
        np.testing.assert_allclose(trace["y"], weights @ values / weights.sum(1), rtol=1e-9)


def test_logarithmic_axes(visit, page_of_sweep):
    page = visit(page_of_sweep)
    plots = "[...document.querySelectorAll('#curves .plot, #metrics .plot')]"
    for label, axis in (("horizontal", "xaxis"), ("vertical", "yaxis")):
        types = f"{plots}.map((each) => each._fullLayout.{axis}.type)"
        assert set(page.evaluate(types)) == {"linear"}
        page.get_by_label(label).check()
        settle(page)
        assert set(page.evaluate(types)) == {"log"}


def test_the_sweep(visit, page_of_sweep, sweep):
    page = visit(page_of_sweep)
    page.get_by_role("combobox", name="Metric").select_option(label="val/loss")
    settle(page)
    lines = "document.querySelector('#parallel .plot').data"
    found = page.evaluate(f"{lines}.map(({{ y, meta }}) => [meta.run, meta.value, y])")
    texts = page.locator("#parallel .annotation-text").all_text_contents()
    assert {"schedule", "lr (log)", "batch_size", "val/loss", "Linear", "Cosine", "0.0001", "0.01"} <= set(texts)
    last = [logged(sweep, run, "val/loss")[-1][1] for run in range(4)]
    assert [(run, value) for run, value, _ in found] == list(enumerate(last))
    heights = np.array([height for _, _, height in found])
    assert heights.shape == (4, 4)
    np.testing.assert_allclose(heights[:, -1], (np.array(last) - min(last)) / (max(last) - min(last)), atol=1e-12)
    assert {tuple(sorted(column)) for column in heights.T[:-1]} == {(0, 0, 1, 1), (0, 1, 1, 1)}


def test_runs_are_left_out_everywhere(visit, page_of_sweep):
    page = visit(page_of_sweep)
    boxes = page.locator("#legend input")
    boxes.nth(1).focus()
    page.keyboard.press("Space")
    settle(page)
    assert [trace["run"] for trace in drawn(page, "#curves", "val/loss")] == [0, 2, 3]
    assert page.locator("#images img").count() == 3
    assert page.locator("#values tbody tr").count() == 3
    assert page.evaluate("document.querySelector('#parallel .plot').data.length") == 3
    for box in (2, 3):
        boxes.nth(box).uncheck()
    settle(page)
    assert page.locator("#config > .scroll").count() == 0, "nothing differs"
    page.get_by_role("button", name="None").press("Enter")
    settle(page)
    assert page.locator("#images img").count() == 0
    assert page.locator("#values table").count() == 0
    boxes.nth(0).check()
    settle(page)
    assert [trace["run"] for trace in drawn(page, "#curves", "val/loss")] == [0]
    page.get_by_role("button", name="All").press("Enter")
    settle(page)
    assert [trace["run"] for trace in drawn(page, "#curves", "val/loss")] == [0, 1, 2, 3]


def test_the_keyboard_reaches_every_control(still):
    every = "[...document.querySelectorAll('input, select, button, summary, .scroll')]"
    asked = f"{every}.filter((each) => each.checkVisibility())"
    controls = still.evaluate(f"{asked}.map((each, index) => each.dataset.number = index).length")
    reached = []
    for _ in range(controls + 5):
        still.keyboard.press("Tab")
        number, outline, name = still.evaluate(
            """() => { const each = document.activeElement; const style = getComputedStyle(each);
            return [each.dataset.number ?? null, style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth),
              (each.labels?.length ? each.labels[0].innerText : "") || each.ariaLabel || each.innerText]; }"""
        )
        if number is not None:
            reached.append(int(number))
            assert outline >= 2, name
            assert name
    # Of radio buttons only the chosen one is a stop.
    missed = f"{asked}.filter((_, number) => !reached.includes(number))"
    missed = still.evaluate(f"(reached) => {missed}.map((each) => each.outerHTML)", reached)
    assert len(missed) == 1
    assert 'value="steps"' in missed[0]


def test_dark_is_dark_and_follows_the_system(visit, page_of_sweep):
    page = visit(page_of_sweep)

    def colors():
        settle(page)
        return page.evaluate(
            """() => { const plot = document.querySelector("#curves .plot");
            const style = (each) => getComputedStyle(each);
            return [style(document.body).backgroundColor, style(plot.querySelector(".js-line")).stroke,
              style(plot.querySelector(".xtick text")).fill]; }"""
        )

    light = colors()
    page.emulate_media(color_scheme="dark")
    dark = colors()
    assert all(before != after for before, after in zip(light, dark, strict=True))
    assert light[0] == "rgb(246, 247, 249)"
    assert dark[0] == "rgb(15, 18, 22)"
    page.emulate_media(color_scheme="light")
    assert colors() == light


def test_nothing_is_wider_than_a_small_screen(visit, page_of_sweep):
    width = 320
    page = visit(page_of_sweep, width=width)
    page.locator("#config summary").click()
    page.locator("#reasons summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("scrollTo(500, 0)")
    assert page.evaluate("scrollX") == 0
    for plot in page.locator("#curves .plot, #metrics .plot").all():
        box = plot.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert plot.locator("svg.main-svg").first.bounding_box()["width"] <= box["width"] + 1


def test_names_are_texts(visit, tmp_path):
    """Markup in a run's name, in a config's value and key, in a metric's name and in a file that is reported."""
    name = NASTY.replace("/", "|")
    rows = [{"step": step, "train/loss": 1.0, f"eval/{NASTY}": step, "eval/protocol": NASTY} for step in (1, 2)]
    for seed in range(4):
        run = make_run(tmp_path / "<i>runs", f"{name}{seed}", change={"seed": seed}, rows=rows)
        config = run / "config.yaml"
        config.write_text(f"{config.read_text()}{json.dumps(NASTY)}: {json.dumps(f'{NASTY}{seed}')}\n")
    (run / "metrics.json").write_text("{")
    report([tmp_path], tmp_path / "report.html", None, [])
    page = visit(tmp_path / "report.html")
    assert page.title() == "4 runs of <i>runs"
    assert page.inner_text("h1") == "4 runs of <i>runs"
    assert page.evaluate("window.ran") is None
    assert page.locator("script").count() == 4, "the page's own"
    assert page.locator("img, b, i").count() == 0
    assert page.locator("#legend label").all_inner_texts() == [f"{name}{seed}" for seed in range(4)]
    assert NASTY in page.locator("#metrics figcaption").first.inner_text()
    assert page.get_by_role("rowheader", name=NASTY, exact=True).count() == 1
    assert f"{NASTY}3" in page.inner_text("#config")
    texts = [text.replace(" ", "") for text in page.locator("#parallel .annotation-text").all_text_contents()]
    assert {f"{NASTY} (protocol not recorded)".replace(" ", ""), f"{NASTY}0".replace(" ", "")} <= set(texts)
    hover = page.locator("#curves .plot").first
    hover.scroll_into_view_if_needed()
    x, y = page.evaluate(
        """() => { const box = document.querySelector("#curves .nsewdrag").getBoundingClientRect();
        const { xaxis, yaxis } = document.querySelector("#curves .plot")._fullLayout;
        return [box.x + xaxis.c2p(2 * 128), box.y + yaxis.c2p(1)]; }"""
    )
    page.mouse.move(x, y - 3)
    page.mouse.move(x, y)
    page.wait_for_selector("#curves .hovertext")
    assert name in page.locator("#curves .hovertext").first.text_content()


def test_what_is_missing_is_reported(visit, tmp_path):
    bare = make_run(tmp_path, "bare")
    report([bare], tmp_path / "bare.html", None, [])
    page = visit(tmp_path / "bare.html")
    assert "have logged nothing yet" in page.inner_text("#curves")
    assert "no evaluated values" in page.inner_text("#values")
    assert "no images yet" in page.inner_text("#images")
    assert not page.locator("#sweep").is_visible()
    rows = [{"step": step, "train/loss": math.nan if step in (3, 4) else step - 2} for step in range(1, 8)]
    spoilt = make_run(tmp_path, "spoilt", rows=rows, images={("samples", 1): np.zeros((4, 4, 3), np.uint8)})
    (spoilt / "samples" / "samples_00000001.png").write_bytes(b"")
    (spoilt / "config.yaml").write_text("a: [")
    report([bare, spoilt], tmp_path / "spoilt.html", None, [])
    page = visit(tmp_path / "spoilt.html")
    assert "images seen are not known of spoilt" in page.inner_text("#axis-note")
    page.get_by_label("steps", exact=True).check()
    page.get_by_label("vertical").check()
    settle(page)
    note = page.inner_text("#curves figcaption small")
    assert "spoilt: 2 not finite, at step 3, 4" in note
    assert "2 values that are not positive have no place on a logarithmic axis" in note
    (trace,) = drawn(page, "#curves", "train/loss")
    assert trace["y"] == [-1, 0, None, None, 3, 4, 5]
    assert page.locator("#images .none").all_inner_texts() == ["none yet", "the file is damaged"]
    assert "config.yaml is damaged" in page.inner_text("#runs")
    assert "samples_00000001.png cannot be read" in page.inner_text("#notes")


def test_the_policy_lets_no_other_script_run_and_nothing_be_loaded(browser, page_of_sweep):
    asked = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)

    context = browser.new_context()
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever).start()
        page = context.new_page()
        page.add_init_script(
            "addEventListener('securitypolicyviolation', (e) => (window.refused ??= []).push(e.violatedDirective))"
        )
        page.goto(page_of_sweep.as_uri())
        page.evaluate(
            """(place) => { for (const [tag, name, value] of [["script", "textContent", "window.ran = 1"],
              ["img", "src", `${place}/a.png`], ["script", "src", `${place}/a.js`]])
                document.body.append(Object.assign(document.createElement(tag), { [name]: value })); }""",
            f"http://127.0.0.1:{server.server_port}",
        )
        page.wait_for_selector("html[data-drawn]")
        assert sorted(page.evaluate("window.refused")) == ["img-src", "script-src-elem", "script-src-elem"]
        assert page.evaluate("window.ran") is None
        server.shutdown()
    assert asked == []
    context.close()


def test_a_browser_without_what_it_takes_reports_it(browser, page_of_sweep):
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.add_init_script("delete window.DecompressionStream")
    page.goto(page_of_sweep.as_uri())
    page.wait_for_selector("#trouble:has-text('could not be drawn')")
    context.close()
