"""What the page shows, in a headless Chromium."""

import base64
import io
import math

import numpy as np
import pytest
from PIL import Image
from report_helpers import drawn, evaluated, logged, make_protocol, make_run, settle

from langevin.report.__main__ import report

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
        for run, trace in enumerate(drawn(page, "#metrics", "fid@50 (steps=20)")):
            expected = [[step * scale[run], value] for step, value in logged(sweep, run, "eval/fid@50")]
            assert [list(point) for point in zip(trace["x"], trace["y"], strict=True)] == expected
    assert "fid@50 was computed in 2 ways, which are shown separately in charts" in page.inner_text("#reasons")


@pytest.mark.slow
def test_evaluations_are_rows_of_a_table(visit, page_of_sweep, sweep):
    """The last of each run's training, and the one of evaluate.py, which is no chart: it would have one point."""
    page = visit(page_of_sweep)
    heads = page.locator("#evaluations thead th").all_inner_texts()
    assert heads == ["run", "fid@50", "sampler.steps", "NFE", "step", "evaluated"]
    rows = [row.inner_text().split("\t") for row in page.locator("#evaluations tbody tr").all()]
    last = [logged(sweep, run, "eval/fid@50")[-1] for run in range(4)]
    expected = [
        [f"run{run}", f"{value:.5g}", "20", "20", str(step), "in training"] for run, (step, value) in enumerate(last)
    ]
    expected.insert(1, ["run0", "3.5", "50", "50", "200", "late"])
    assert rows == expected
    shown = page.locator("#metrics figcaption").filter(visible=True).all_inner_texts()
    assert shown == ["fid@50 (steps=20)"]
    page.locator("#legend input").first.uncheck()
    settle(page)
    assert page.locator("#evaluations tbody tr").count() == 3


@pytest.mark.slow
def test_no_chart_has_one_point_and_tasks_share_none(visit, tmp_path):
    """A classifier beside a denoiser; what has one value is in the table, and what is not finite is still reported."""
    rows = [{"step": step, "train/loss": 1 / step, "val/loss": 2.0 if step == 2 else ""} for step in (1, 2, 3)]
    short = [{"step": 1, "train/loss": 0.5, "val/loss": math.nan}]
    make_run(tmp_path / "runs", "denoiser", rows=rows)
    classifier = {"task._target_": "langevin.assembly.tasks.ClassificationTask"}
    make_run(tmp_path / "runs", "classifier", change=classifier, rows=rows)
    make_run(tmp_path / "runs", "young", rows=short)
    report([tmp_path / "runs"], tmp_path / "report.html", None, [])
    page = visit(tmp_path / "report.html")
    shown = page.locator("#curves figcaption").filter(visible=True)
    assert shown.all_inner_texts() == ["train/loss (classifier)", "train/loss (denoiser)"]
    assert [trace["run"] for trace in drawn(page, "#curves", "train/loss (denoiser)")] == [1, 2]
    assert [trace["run"] for trace in drawn(page, "#curves", "train/loss (classifier)")] == [0]
    note = page.inner_text("#curves-note")
    assert "One value a run, see Last losses: val/loss (classifier), val/loss (denoiser)" in note
    assert "val/loss (denoiser): " in note
    assert "1 not finite, at step 1" in note
    cells = [row.inner_text().split("\t") for row in page.locator("#values tbody tr").all()]
    assert cells == [["classifier", "2 at 2", ""], ["denoiser", "", "2 at 2"], ["young", "", "nan"]]
    for box in (0, 1):
        page.locator("#legend input").nth(box).uncheck()
    settle(page)
    assert shown.count() == 0, "of the run of one step alone, nothing is a line"


@pytest.mark.slow
def test_no_parallel_coordinates_of_a_single_axis(visit, tmp_path):
    """Runs in one folder that differ in nothing but what has no part in the training."""
    for number in range(5):
        rows = [{"step": step, "train/loss": step * number} for step in (1, 2)]
        run = make_run(
            tmp_path / "runs", f"run{number}", change={"seed": int(number == 4)}, rows=rows if number < 4 else ()
        )
        evaluated(run / "evaluations" / "x", number, make_protocol(), step=2)
    report([tmp_path / "runs"], tmp_path / "report.html", None, [])
    page = visit(tmp_path / "report.html")
    options = page.locator("#metric option").all_inner_texts()
    assert options == ["fid@50"], "the losses are of runs that do not differ"
    texts = page.locator("#parallel .annotation-text").all_text_contents()
    assert {"seed", "fid@50"} <= set(texts)
    page.locator("#legend input").nth(4).uncheck()
    settle(page)
    assert not page.locator("#parallel").is_visible()
    assert "do not differ" in page.inner_text("#parallel-note")


@pytest.mark.slow
def test_receipts_are_shown(visit, page_of_sweep):
    page = visit(page_of_sweep)
    assert "Hardware: 1 x GPU <b>." in page.inner_text("#notes")
    page.get_by_text("Commands, versions of the code").click()
    rows = [row.inner_text().split("\t") for row in page.locator("#receipts tbody tr").all()]
    assert [row[1:] for row in rows] == [[f"python train.py seed={seed}", "1.0", "0:00:00"] for seed in range(4)]


@pytest.mark.slow
def test_every_panel_has_its_marks(still):
    plots = still.locator(".plot").filter(visible=True)
    assert plots.count() == 5 + 1 + 1
    for plot in plots.all():
        lines = plot.locator(".scatterlayer .trace")
        assert lines.count() == 4
        path = lines.first.locator("path").first
        assert len(path.get_attribute("d")) > 3
        box = plot.bounding_box()
        assert box["width"] > 200
        assert box["height"] > 200
    assert still.locator("#runs tbody tr").count() == 4
    cells = [cell.inner_text() for cell in still.locator("#runs tbody tr").nth(3).locator("th, td").all()]
    assert cells[:4] == ["run3", "unfinished", "100 of 200", "6,400"]
    values = [cell.inner_text() for cell in still.locator("#values tbody tr").first.locator("th, td").all()]
    assert values == ["run0", "0.01"]
    assert still.locator("#images img").count() == 4
    options = set(still.locator("#config > .scroll th[scope=row]").all_inner_texts())
    assert {"optimizer.lr", "batch_size", "schedule._target_"} <= options
    assert "seed" not in options
    still.locator("#config summary").click()
    assert still.locator("#config details").get_by_role("rowheader", name="seed", exact=True).is_visible()
    assert still.title() == "4 runs of runs"


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_logarithmic_axes(visit, page_of_sweep):
    page = visit(page_of_sweep)
    plots = "[...document.querySelectorAll('figure:not([hidden]) .plot')]"
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
    assert {"schedule", "lr (log)", "batch_size", "val/loss", "linear", "cosine", "0.0001", "0.01"} <= set(texts)
    last = [logged(sweep, run, "val/loss")[-1][1] for run in range(4)]
    assert [(run, value) for run, value, _ in found] == list(enumerate(last))
    heights = np.array([height for _, _, height in found])
    assert heights.shape == (4, 4)
    np.testing.assert_allclose(heights[:, -1], (np.array(last) - min(last)) / (max(last) - min(last)), atol=1e-12)
    assert {tuple(sorted(column)) for column in heights.T[:-1]} == {(0, 0, 1, 1), (0, 1, 1, 1)}


@pytest.mark.slow
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


@pytest.mark.slow
def test_what_is_missing_is_reported(visit, tmp_path):
    bare = make_run(tmp_path, "bare")
    report([bare], tmp_path / "bare.html", None, [])
    page = visit(tmp_path / "bare.html")
    assert "have logged nothing yet" in page.inner_text("#curves")
    assert "no evaluated values" in page.inner_text("#evaluations")
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
