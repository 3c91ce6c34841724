// The panels.

const content = JSON.parse(byId("content").textContent);
const runs = content.runs.map((run, index) => ({ ...run, index, shown: true }));
const charts = new Map();
const named = (run) => ({ node: swatch(run.index), text: run.name });
const titled = (group) => group.protocol ? `${group.name} (${group.protocol})` : group.name;
const headed = (column) => column.task ? `${column.name} (${column.task})` : column.name;
// A line needs two points: a value alone is in the tables.
const isLine = ({ x, y }) => new Set(x.filter((_, i) => y[i] !== null)).size > 1;
const isDrawn = (column) => column.runs.some((curve) => curve && isLine(curve));

// Runs

function setUpRuns() {
  const number = (text) => ({ text, class: "number" });
  const varied = content.varied.slice(0, 8), more = content.varied.length - varied.length;
  const hardware = ({ sessions }) => sessions.hardware.join(", ") || "not recorded";
  const machines = [...new Set(runs.map(hardware))];
  const heads = ["run", "state", number("step"), number("images seen"), number("images/s"), "training time", ...varied,
    ...(machines.length > 1 ? ["hardware"] : []), "last written"];
  const rows = runs.map((run) => [
    named(run),
    { text: run.state, note: run.note, class: run.state === "failed" ? "bad" : null },
    number(`${whole(run.step)} of ${run.max_steps === null ? "?" : whole(run.max_steps)}`),
    number(run.batch_size === null ? "not recorded" : whole(run.step * run.batch_size)),
    number(run.speed === null ? "not recorded" : whole(Math.round(run.speed))),
    run.time ?? "not recorded",
    ...varied.map((name) => run.differs[name]?.text ?? "–"),
    ...(machines.length > 1 ? [hardware(run)] : []),
    run.updated ?? "not recorded",
  ]);
  byId("runs").append(table("Runs", heads, [{ rows }]));
  const running = runs.filter((run) => run.state === "running").length;
  list("notes", [
    ...(machines.length > 1 ? [] : [`Hardware: ${machines[0]}.`]),
    "Training time follows from the logged images/s, without sampling and evaluation.",
    ...(more > 0 ? [`${more} more options differ: see Config.`] : []),
    ...(running ? [`${running} ${running > 1 ? "runs were" : "run was"} going on when this page was made.`] : []),
    ...content.faults,
  ]);
  byId("receipts").append(make("details", {}, make("summary", {}, "Commands, versions of the code, time in all"),
    table("Receipts", ["run", "command", "code", "in all"], [{ rows: runs.map((run) => [
      named(run),
      run.sessions.command || "not recorded",
      run.sessions.code.join(", ") || "not recorded",
      { text: run.sessions.wall_time ?? "not recorded", note: run.sessions.killed ? "and what was killed" : "" },
    ]) }])));
  list("reasons", content.reasons.map(({ name, ways, why }) => make("details", {},
    make("summary", {}, `${name} was computed in ${ways} ways, which are shown separately in charts`),
    make("ul", {}, ...why.map((each) => make("li", {}, each))),
    "Differences that are meant: --vary PATH, such as samples.sampler.")));
  byId("made").textContent = `Made ${content.made} by Langevin ${content.version}; `
    + `columns of more than ${whole(content.points)} values are thinned out, extremes kept.`;
}

// Curves

// The places of charts: all of them before the first is drawn, which takes the width that it finds.
function setUpCharts(parent, all, title) {
  for (const one of all) {
    const note = make("small"), node = make("div", { class: "plot" });
    const figure = make("figure", {}, make("figcaption", {}, title(one), note), node);
    parent.append(figure);
    charts.set(one, { node, note, figure });
  }
}

// A chart of what is shown now; none where no trace is a line.
function drawChart(one, traces, notes, now) {
  const { node, note, figure } = charts.get(one);
  note.textContent = [...notes, ...notPositive(traces, now.logY)].join("; ");
  figure.hidden = !traces.some(isLine);
  if (!figure.hidden) plot(node, traces, axes(now, traces));
}

function view() {
  const images = document.querySelector("input[name=axis]:checked").value === "images";
  return { images, logX: byId("log-x").checked, logY: byId("log-y").checked, smoothing: Number(byId("smoothing").value),
    scale: (run) => images ? run.batch_size : 1 };
}

// The same horizontal axis for all charts, of all runs.
function axes({ images, logX, logY, scale }, traces) {
  const ends = (end) => content.curves.flatMap(({ runs: curves }) =>
    runs.flatMap((run) => curves[run.index] && scale(run) ? [curves[run.index].x.at(end) * scale(run)] : []));
  const first = Math.min(...ends(0)), last = Math.max(...ends(-1));
  const range = logX ? [Math.log10(first / 1.05), Math.log10(last * 1.05)] : [0, last * 1.02];
  const known = Number.isFinite(first) ? { range } : {};
  return { xaxis: axis(images ? "images seen" : "steps", logX, [first, last], { tickformat: "~s", ...known }),
    yaxis: axis("", logY, traces.flatMap(({ y }) => y)), uirevision: `${images} ${logX} ${logY}` };
}

function notPositive(traces, logY) {
  const lost = logY ? traces.flatMap(({ y }) => y).filter((value) => value !== null && value <= 0).length : 0;
  return lost ? [`${whole(lost)} values that are not positive have no place on a logarithmic axis`] : [];
}

function drawCurves(shown, now) {
  const lost = []; // notes of charts that are not drawn
  for (const column of content.curves) {
    const drawn = shown.filter((run) => column.runs[run.index] && now.scale(run));
    const longest = Math.max(...drawn.map((run) => column.runs[run.index].x.at(-1) * now.scale(run)));
    const isNoisy = column.name.startsWith("train/") && column.name !== "train/learning_rate";
    const isSmoothed = now.smoothing > 0 && isNoisy;
    const notes = [];
    const traces = drawn.flatMap((run) => {
      const { x, y, means, rows, bad, bad_steps: badSteps } = column.runs[run.index];
      const scaled = (steps) => steps.map((step) => step * now.scale(run));
      if (bad) notes.push(`${run.label}: ${whole(bad)} not finite, at step ${badSteps.join(", ")}`
        + (bad > badSteps.length ? ", …" : ""));
      if (means) notes.push(`${run.label}: ${whole(rows)} values, of which extremes are drawn`);
      const raw = line(run, scaled(x), y);
      if (!isSmoothed) return [raw];
      const [steps, values, weights] = means ?? [x, y, x.map(() => 1)];
      const mean = smoothed(scaled(steps), values, weights, longest * now.smoothing / 100);
      const faint = { mode: "lines", opacity: 0.25, hoverinfo: "skip", hovertemplate: null };
      return [{ ...raw, ...faint }, line(run, mean.x, mean.y, { mode: "lines" })];
    });
    drawChart(column, traces, notes, now);
    if (charts.get(column).figure.hidden && notes.length) lost.push(`${headed(column)}: ${notes.join("; ")}`);
  }
  const single = content.curves.filter((column) => !isDrawn(column)).map(headed);
  byId("curves-note").textContent = [
    ...(single.length ? [`One value a run, see Last losses: ${single.join(", ")}`] : []), ...lost].join("; ");
}

function drawMetrics(now) {
  for (const group of content.groups) {
    const traces = group.series.flatMap(({ run: index, settings, points }) => {
      const run = runs[index], known = points.filter(([step]) => step !== null);
      if (!run.shown || !now.scale(run) || !known.length) return [];
      return [line(run, known.map(([step]) => step * now.scale(run)), known.map(([, value]) => value), {
        mode: "lines+markers", name: markup(settings ? `${run.label}, ${settings}` : run.label),
        text: known.map(([, , source]) => markup(source)),
        hovertemplate: "%{y:.5g} at %{x:,}, %{text}<extra>%{fullData.name}</extra>",
      })];
    });
    const bad = traces.flatMap(({ y }) => y).filter((value) => value === null).length;
    drawChart(group, traces, [
      ...(group.varied.length ? [`compared over ${group.varied.join(", ")}`] : []),
      ...(bad ? [`${whole(bad)} values are not finite`] : []),
    ], now);
  }
}

// Tables

function drawEvaluations() {
  const { heads, names, rows } = content.evaluations;
  const number = (text) => ({ text, class: "number" });
  const isNumeric = heads.map((_, column) => rows.every(({ settings }) => !Number.isNaN(Number(settings[column]))));
  const setting = (text, column) => isNumeric[column] ? number(text) : text;
  const found = rows.filter(({ run }) => runs[run].shown).map(({ run, step, source, settings, values }) => [
    named(runs[run]),
    ...names.map((name) => name in values ? number(short(values[name])) : ""),
    ...settings.map(setting),
    number(step === null ? "not recorded" : whole(step)),
    source,
  ]);
  // The values come first, so that they are seen on a small screen too.
  const head = ["run", ...names.map((name) => number(name)), ...heads.map(setting), number("step"), "evaluated"];
  byId("evaluations").replaceChildren(
    found.length ? table("Evaluations", head, [{ rows: found }]) : "There are no evaluated values.");
}

function drawValues(shown) {
  const losses = content.curves.filter((column) => column.name.startsWith("val/") || !isDrawn(column));
  const cell = (run, { runs: curves }) => {
    const curve = curves[run.index], step = curve?.x.at(-1);
    if (!curve) return "";
    return { text: short(curve.y.at(-1)), note: step < run.step ? `at ${whole(step)}` : "", class: "number" };
  };
  const rows = shown.filter((run) => losses.some(({ runs: curves }) => curves[run.index]))
    .map((run) => [named(run), ...losses.map((column) => cell(run, column))]);
  byId("values-head").hidden = !rows.length;
  const heads = ["run", ...losses.map((column) => ({ text: headed(column), class: "number" }))];
  byId("values").replaceChildren(...(rows.length ? [table("Last losses", heads, [{ rows }])] : []));
}

function drawConfig(shown) {
  const isSame = ({ values }) => shown.every((run) => values[run.index] === values[shown[0].index]);
  const breaking = (text) => make("span", {}, ...text.split(/(?<=\.)/).flatMap((part) => [part, make("wbr")]));
  const row = (entry, some) =>
    [entry.path, ...some.map((run) => ({ node: breaking(entry.values[run.index] ?? "–"), class: "value" }))];
  const groups = (entries, some) => [["What is trained", true], ["How it is run, watched and sampled", false]]
    .map(([title, decides]) => ({ title, rows: entries.filter((entry) => entry.decides === decides) }))
    .filter(({ rows }) => rows.length)
    .map(({ title, rows }) => ({ title, rows: rows.map((entry) => row(entry, some)) }));
  const differing = content.config.filter((entry) => !isSame(entry)), same = content.config.filter(isSame);
  const heads = shown.map((run) => ({ ...named(run), text: run.label }));
  const open = byId("config").querySelector("details")?.open ?? false;
  byId("config").replaceChildren(
    differing.length ? table("What differs", ["option", ...heads], groups(differing, shown)) : "Nothing differs.",
    make("details", { open }, make("summary", {}, `${same.length} options are the same`),
      table("What is the same", ["option", "value"], shown.length ? groups(same, shown.slice(0, 1)) : [])));
}

// Images

function setUpImages() {
  const place = byId("images"), several = content.images.length > 1;
  if (!content.images.length) {
    place.textContent = "These runs have made no images yet.";
    return () => {};
  }
  const options = content.images.map((each, index) => make("option", { value: index }, each.kind));
  const kind = make("select", {}, ...options);
  const text = make("output", { for: "step" });
  const slider = make("input", { type: "range", id: "step", min: 0, step: 1 });
  const note = make("p", { class: "notes" });
  const grids = make("div", { class: "grids" });
  place.append(make("div", { class: "controls" }, several ? make("label", {}, "Images ", kind) : null,
    make("div", { class: "slider" }, make("label", { for: "step" }, "Step"), " ", text, slider)), grids, note);
  // Pixels of small images stay squares; those of large ones, which may hold letters, are smoothed as they shrink.
  const onload = ({ target }) => target.classList.toggle("pixels", target.naturalWidth < target.clientWidth);
  const draw = () => {
    const { kind: name, steps, of, shown } = content.images[kind.value];
    const at = Number(slider.value);
    text.textContent = whole(steps[at]);
    slider.setAttribute("aria-valuetext", `step ${whole(steps[at])}`);
    grids.replaceChildren(...runs.filter((run) => run.shown).map((run) => {
      const [key, step] = shown[run.index][at];
      const when = step === null ? "" : `step ${whole(step)}`;
      const alt = `${name} of ${run.label} at ${when}`;
      return make("figure", {},
        make("figcaption", {}, swatch(run.index), ` ${run.label}`, make("small", {}, when)),
        key ? make("img", { src: `data:image/png;base64,${content.png[key]}`, alt, onload })
          : make("div", { class: "none" }, step === null ? "none yet" : "the file is damaged"));
    }));
    const why = content.limited ? ", for a page below 10 MB" : "";
    note.textContent = "Each run shows its newest images up to this step."
      + (steps.length < of ? ` ${steps.length} of ${of} steps are shown, evenly spread${why}: --grids N shows N.` : "");
  };
  const start = () => {
    slider.value = slider.max = content.images[kind.value].steps.length - 1;
    grids.classList.toggle("wide", content.images[kind.value].kind !== "samples");
    draw();
  };
  slider.oninput = draw;
  kind.onchange = start;
  start();
  return draw;
}

// Sweep: parallel coordinates, a line a run.

const measures = [
  ...content.groups.map((group) => ({ name: titled(group), short: group.name, of: (run) => {
    const own = group.series.filter((series) => series.run === run.index);
    return own.length === 1 ? own[0].points.at(-1)[1] : null;
  } })),
  ...content.curves.map((column) =>
    ({ name: headed(column), short: column.name, of: (run) => column.runs[run.index]?.y.at(-1) ?? null })),
].filter((measure) => axesOf(linesOf(measure, runs)).length);

// The runs that have a value of a measure, and the options in which they differ.
function linesOf(measure, shown) {
  return shown.map((run) => ({ run, value: measure.of(run) })).filter(({ value }) => value !== null);
}

function axesOf(lines) {
  return content.varied.filter((name) => new Set(lines.map(({ run }) => run.differs[name]?.text)).size > 1);
}

// A text in lines of so many characters, at spaces where there are some.
function wrapped(text, most) {
  return text.split(" ").flatMap((word) => word.match(new RegExp(`.{1,${most}}`, "gu")) ?? []).reduce((lines, word) => {
    const joined = lines.length ? `${lines.at(-1)} ${word}` : word;
    return lines.length && joined.length <= most ? [...lines.slice(0, -1), joined] : [...lines, word];
  }, []);
}

function drawSweep(shown) {
  const measure = measures[byId("metric").value];
  const lines = linesOf(measure, shown), columns = axesOf(lines);
  const lost = shown.length - lines.length;
  byId("parallel-note").textContent = "Coloured by the metric's last value."
    + (lost ? ` Left out for want of a single finite value: ${lost}.` : "");
  byId("parallel").hidden = !columns.length;
  if (!columns.length) {
    byId("parallel-note").textContent = "The runs that are shown with this metric do not differ.";
    return;
  }
  const scales = [
    ...columns.map((name) => placed(lines.map(({ run }) => run.differs[name]))),
    placed(lines.map(({ value }) => ({ number: value, text: short(value) })), 2),
  ];
  const [low, high] = ["--low", "--high"].map((name) => color(name).match(/\w\w/g).map((part) => parseInt(part, 16)));
  const mixed = (at) => `rgb(${low.map((part, c) => Math.round(part + (high[c] - part) * at)).join()})`;
  const traces = lines.map(({ run, value }, i) => ({
    type: "scatter", mode: "lines+markers", x: [...scales.keys()], y: scales.map((scale) => scale.at[i]),
    name: markup(run.label), meta: { run: run.index, value }, marker: { size: 7 },
    line: { width: 2, color: mixed(scales.at(-1).at[i]) },
    hovertemplate: `${markup(measure.name)} ${short(value)}<extra>${markup(run.label)}</extra>`,
  }));
  const tick = ([y, text], x) => ({ x, y, text: markup(text), showarrow: false, font: { size: 11 },
    ...(x === columns.length ? { xanchor: "left", xshift: 7 } : { xanchor: "right", xshift: -7 }),
    bgcolor: color("--card"), opacity: 0.9, borderpad: 1 });
  const head = (name, x) => ({ x, y: 1.06, showarrow: false, xanchor: "center", yanchor: "bottom",
    text: wrapped(name + (scales[x].isLog ? " (log)" : ""), 18).map(markup).join("<br>"),
    font: { size: 12, weight: 600 } });
  const upright = (x) => ({ type: "line", x0: x, x1: x, y0: 0, y1: 1, layer: "below",
    line: { color: color("--soft"), width: 1 } });
  const hidden = { visible: false, fixedrange: true };
  const node = byId("parallel").firstChild ?? byId("parallel").appendChild(make("div", { class: "plot" }));
  node.style.minWidth = `${scales.length * 8}rem`;
  plot(node, traces, {
    margin: { l: 8, r: 8, t: 8, b: 8 },
    xaxis: { ...hidden, range: [-0.4, scales.length - 0.6] }, yaxis: { ...hidden, range: [-0.08, 1.3] },
    shapes: [...scales.keys()].map(upright),
    annotations: [...scales.flatMap(({ ticks }, x) => ticks.map((each) => tick(each, x))),
      ...[...columns, measure.short].map(head)],
  });
}

// All of it

async function load() {
  const packed = Uint8Array.from(atob(byId("library").textContent), (character) => character.charCodeAt(0));
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  document.head.append(make("script", {}, await new Response(unpacked).text()));
}

function start() {
  setUpRuns();
  setUpCharts(byId("curves"), content.curves, (column) => [headed(column), ...column.same].join(" = "));
  setUpCharts(byId("metrics"), content.groups, titled);
  if (!content.curves.length) byId("curves").textContent = "These runs have logged nothing yet.";
  const drawImages = setUpImages();
  const isSweep = runs.length > 3 && measures.length > 0;
  byId("sweep").hidden = !isSweep;
  byId("metric").append(...measures.map(({ name }, index) => make("option", { value: index }, name)));
  const chosen = () => runs.filter((run) => run.shown);
  const draw = () => {
    const now = view();
    const lost = chosen().filter((run) => !now.scale(run)).map((run) => run.label);
    byId("smoothing-text").textContent = now.smoothing ? `over ±${now.smoothing}% of the run` : "off";
    byId("axis-note").textContent = lost.length
      ? `The images seen are not known of ${lost.join(", ")}: see against steps.` : "";
    drawCurves(chosen(), now);
    drawMetrics(now);
  };
  const drawAll = () => {
    draw();
    drawEvaluations();
    drawValues(chosen());
    drawConfig(chosen());
    drawImages();
    if (isSweep) drawSweep(chosen());
  };
  const soon = (what) => { // once a frame
    let waiting = 0;
    return () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(what); };
  };
  const [soonDraw, soonAll] = [soon(draw), soon(drawAll)];
  const show = (some, isShown) => {
    for (const run of some) run.shown = boxes[run.index].checked = isShown;
    soonAll();
  };
  const boxes = runs.map((run) =>
    make("input", { type: "checkbox", checked: true, onchange: (event) => show([run], event.target.checked) }));
  const button = (text, isShown) => make("button", { type: "button", onclick: () => show(runs, isShown) }, text);
  byId("legend").append(...(runs.length > 3 ? [button("All", true), button("None", false)] : []),
    ...runs.map((run) => make("label", { title: run.name }, boxes[run.index], swatch(run.index), run.label)));
  for (const control of byId("controls").querySelectorAll("input")) control.oninput = soonDraw;
  byId("metric").onchange = soonAll;
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", soonAll);
  drawAll();
  document.documentElement.dataset.drawn = "true";
}

load().then(start).catch((error) => {
  byId("trouble").textContent = `This page could not be drawn (${error.message}). It needs a browser of 2023 or later.`;
  throw error;
});
