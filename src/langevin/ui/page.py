"""The page, made with gradio; nothing else imports gradio."""

import base64
import os
import socket
from html import escape

# Gradio reads these when it is imported: nothing is sent to anybody.
os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}

import gradio as gr
import uvicorn
from fastapi import FastAPI

from langevin.errors import UserError
from langevin.images import Figure
from langevin.ui.explorer import OWN, Asked, Explorer, Made, name_of

IN_TURN = -1
"""Of the classes: every one in turn."""
LARGEST = 2
"""How many times as wide as its file a figure is shown at most."""
FONTS = ["system-ui", "sans-serif"]
STYLE = """
.runs { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1.5rem 2rem; }
.runs h2 { font-size: 1.05rem; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
.runs h2 small, .runs figcaption { font-weight: 400; font-size: .85rem; opacity: .75; }
.runs .figures { display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: start; }
.runs figure { margin: .6rem 0 0; flex: 1 1 20rem; max-width: 40rem; min-width: 0; }
.runs figure.wide { flex-basis: 100%; max-width: none; }
.runs img { width: 100%; height: auto; display: block; background: #fff; border-radius: 2px; }
.runs img.pixels { image-rendering: pixelated; }
.runs code { display: block; margin-top: .6rem; font-size: .78rem; overflow-wrap: anywhere; }
.runs figcaption { margin-top: .3rem; }
.runs .start { opacity: .75; }
"""


def page(explorer: Explorer) -> gr.Blocks:
    """The page of some runs."""
    names = " and ".join(name_of(run) for run in explorer.runs)
    classes = explorer.class_names
    own = "the run's own" if len(explorer.runs) == 1 else "each run's own"
    samplers = [(own, OWN), *((name, name) for name in explorer.samplers)]

    def sample(
        prompt: str, label: int | None, n: int | None, seed: int | None, sampler: str, steps: str, scale: float | None
    ) -> str:
        chosen = None if label == IN_TURN else label
        try:
            return shown(explorer.sample(Asked(n, chosen, seed, sampler, number("steps", steps), scale, prompt)))
        except UserError as error:
            text = escape(str(error)).replace("\n", "<br>")
            raise gr.Error(text, duration=20, title="Not possible", print_exception=False) from error

    with gr.Blocks(title=f"Langevin: {names}", analytics_enabled=False) as blocks:
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=260):
                prompt = gr.Textbox("", label="Prompt", lines=2, max_lines=6, visible=explorer.prompted)
                label = gr.Dropdown(
                    [("in turn", IN_TURN), *((name, index) for index, name in enumerate(classes or ()))],
                    value=IN_TURN,
                    label="Class",
                    visible=classes is not None,
                )
                n = gr.Slider(1, explorer.most, explorer.number, step=1, precision=0, label="Samples")
                seed = gr.Number(0, precision=0, label="Seed")
                sampler = gr.Dropdown(samplers, value=OWN, label="Sampler")
                # No gr.Number: that takes what is empty for 0.
                steps = gr.Textbox(written(explorer.steps), label="Steps", info="Empty: as many as by default.")
                scale = gr.Slider(
                    0,
                    10,
                    explorer.guidance,
                    step=0.1,
                    label="Guidance scale",
                    info="Classifier-free; 1: none.",
                    visible=explorer.guidance is not None,
                )
                button = gr.Button("Sample", variant="primary")
            with gr.Column(scale=4, min_width=320):
                result = gr.HTML(f'<div class="runs"><p class="start">Press Sample to sample from {escape(names)}.</p>')
        sampler.change(
            lambda name: written(explorer.default_steps(name)), sampler, steps, queue=False, show_progress="hidden"
        )
        gr.on(
            [button.click, prompt.submit, seed.submit, steps.submit],
            sample,
            [prompt, label, n, seed, sampler, steps, scale],
            result,
            api_name="sample",
        )
    # One at a time: the runs share the processor, and a config is composed by Hydra's one global state.
    return blocks.queue(default_concurrency_limit=1)


def number(name: str, text: str) -> int | None:
    """A whole number as it is typed; None of an empty text.

    Raises:
        UserError: when it is none.
    """
    try:
        return int(text) if text.strip() else None
    except ValueError as error:
        raise UserError(f"{name}: is {text!r}; allowed: a whole number, or nothing") from error


def written(number: int | None) -> str:
    """The text that `number` reads so."""
    return "" if number is None else str(number)


def shown(made: list[Made]) -> str:
    """What the runs have made, as HTML."""
    return f'<div class="runs">{"".join(map(section, made))}</div>'


def section(made: Made) -> str:
    """What one run has made, as HTML."""
    samples, record = made.samples, made.samples.record["samples"]
    noun, classes = samples.modality.noun, made.run.class_names
    label = ""
    if classes is not None and samples.labels is not None:
        several = len(set(samples.labels.tolist())) > 1
        label = " of the classes in turn" if several else f" of class {classes[samples.labels[0]]}"
    if samples.prompts is not None:
        label = f" of \u201c{samples.prompts[0]}\u201d{label}"
    about = f"{len(samples)} {noun}{label}, seed {record['seed']}"
    cost = f"{record['evaluations']} evaluations of the network each, {made.seconds:.1f} s together"
    parts = [
        f"<h2>{escape(name_of(made.run))} <small>step {made.run.step:,}</small></h2>",
        '<div class="figures"><figure>',
        image(samples.figure(made.columns), about),
        f"<figcaption>{escape(about)}; {cost}.</figcaption></figure>",
    ]
    if samples.trajectory is not None:
        text = f"From noise (left) to the first {noun} (right): what is sampled, and below it the prediction."
        figure = samples.trajectory.figure(samples.modality.traced // 2)
        kind = ' class="wide"' if figure.pixels.shape[1] > 3 * figure.pixels.shape[0] else ""
        parts += [f"<figure{kind}>", image(figure, text), f"<figcaption>{text}</figcaption></figure>"]
    return f"<section>{''.join(parts)}</div><code>{escape(made.call)}</code></section>"


def image(figure: Figure, text: str) -> str:
    """A figure as HTML, within the page: no file of it is written, and no other request can see it."""
    data = base64.b64encode(figure.png()).decode()
    kind = ' class="pixels"' if figure.scale > 1 else ""
    width = LARGEST * figure.scale * figure.pixels.shape[1]
    return f'<img{kind} style="max-width: {width}px" alt="{escape(text)}" src="data:image/png;base64,{data}">'


def serve(blocks: gr.Blocks, opened: socket.socket) -> None:
    """Serve the page from a socket until Ctrl-C or SIGTERM.

    Args:
        blocks: the page.
        opened: the socket.

    Raises:
        KeyboardInterrupt: after the signal, where its handler raises that.
    """
    theme = gr.themes.Default(primary_hue="blue", font=FONTS, font_mono=["ui-monospace", "monospace"])
    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        blocks,
        "/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        theme=theme,
        css=STYLE,
    )
    # A page that is open holds a connection, and what it is waiting for may take minutes: neither is waited for.
    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[opened])
