"""How the page is read and what it lets happen, in a headless Chromium."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from report_helpers import make_run, settle

from langevin.report.__main__ import report

NASTY = '</script><script>window.ran = 1</script><img src=x onerror="window.ran = 1"><b>bold</b>&amp;'


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
    for plot in page.locator("#curves .plot, #metrics .plot").filter(visible=True).all():
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
    assert {NASTY.replace(" ", ""), f"{NASTY}0".replace(" ", "")} <= set(texts)
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


@pytest.mark.slow
def test_a_browser_without_what_it_takes_reports_it(browser, page_of_sweep):
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.add_init_script("delete window.DecompressionStream")
    page.goto(page_of_sweep.as_uri())
    page.wait_for_selector("#trouble:has-text('could not be drawn')")
    context.close()
