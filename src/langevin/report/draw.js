"use strict";

// Elements, tables and plots. Content of a config or a file becomes text only, never markup.

const byId = (id) => document.getElementById(id);
const whole = (value) => value.toLocaleString("en");
const short = (value) => value === null ? "nan" : String(Number(value.toPrecision(5)));
const markup = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;"); // for Plotly
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Of run 0, 1, ...: eight colours, then the same ones in another dash.
const DASHES = [["solid", ""], ["dash", "7 4"], ["dot", "2 3"], ["dashdot", "8 3 2 3"]];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon"];
const ink = (index) => `--run-${index % 8}`;
const dash = (index) => DASHES[(index >> 3) % DASHES.length];

function make(tag, attributes = {}, ...children) {
  const space = ["svg", "line"].includes(tag) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml";
  const node = document.createElementNS(space, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node[name] = value;
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

function swatch(index) {
  const stroke = { style: `stroke: var(${ink(index)})`, "stroke-width": 3, "stroke-dasharray": dash(index)[1] };
  return make("svg", { class: "swatch", viewBox: "0 0 28 12", "aria-hidden": "true" },
    make("line", { x1: 0, y1: 6, x2: 28, y2: 6, ...stroke }));
}

function list(place, texts) {
  byId(place).replaceChildren(...texts.map((text) => make("li", {}, text)));
}

// A table that scrolls by itself. Cells are texts, or {text, note, node, class}.
function table(label, heads, groups) {
  const cell = (tag, value, attributes = {}) => {
    const { text, note, node, ...rest } = value !== null && typeof value === "object" ? value : { text: value };
    return make(tag, { ...attributes, ...rest }, node, text ?? "", note ? make("small", {}, ` ${note}`) : null);
  };
  const titled = (title) => title
    ? [make("tr", { class: "group" }, make("th", { colspan: heads.length, scope: "colgroup" }, title))] : [];
  const row = ([first, ...others]) =>
    make("tr", {}, cell("th", first, { scope: "row" }), ...others.map((value) => cell("td", value)));
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, make("table", {},
    make("thead", {}, make("tr", {}, ...heads.map((head) => cell("th", head, { scope: "col" })))),
    make("tbody", {}, ...groups.flatMap(({ title, rows }) => [...titled(title), ...rows.map(row)]))));
}

// An axis of some values. On a logarithmic one Plotly would mark all of 1, 2, ..., 9 where 1, 2 and 5 do.
function axis(title, isLog, values, rest = {}) {
  let least = Infinity, most = 0;
  for (const value of values) if (value > 0) [least, most] = [Math.min(least, value), Math.max(most, value)];
  const isBetween = most / least > 4 && most / least < 1000;
  const log = { type: "log", tickformat: "~g", ...(isBetween ? { dtick: "D2" } : {}) };
  const ticks = isLog ? log : { type: "linear", exponentformat: "power" };
  return { title: { text: title, standoff: 8 }, gridcolor: color("--grid"), linecolor: color("--line"),
    zeroline: false, automargin: true, ...ticks, ...rest };
}

function plot(node, traces, layout) {
  const clear = "rgba(0,0,0,0)";
  const text = color("--text");
  return Plotly.react(node, traces, {
    margin: { l: 8, r: 12, t: 14, b: 8 }, showlegend: false, hovermode: "closest",
    paper_bgcolor: clear, plot_bgcolor: clear, font: { family: "system-ui, sans-serif", size: 12, color: text },
    hoverlabel: { bgcolor: color("--card"), bordercolor: color("--line"), font: { color: text }, namelength: -1 },
    modebar: { color: color("--soft"), activecolor: text, bgcolor: clear }, ...layout,
  }, { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] });
}

function line(run, x, y, rest = {}) {
  return { type: "scatter", x, y, name: markup(run.label), mode: x.length > 40 ? "lines" : "lines+markers",
    line: { color: color(ink(run.index)), width: 1.75, dash: dash(run.index)[0] },
    marker: { size: 6, symbol: SYMBOLS[run.index % SYMBOLS.length] }, meta: { run: run.index },
    hovertemplate: "%{y:.5g} at %{x:,}<extra>%{fullData.name}</extra>", ...rest };
}

// The mean of each point's neighbourhood, weighted by e^(-distance / tau): a pass from each side.
function smoothed(x, y, weights, tau) {
  const pass = (order) => {
    let sum = 0, mass = 0, at = x[order[0]];
    const seen = [];
    for (const i of order) {
      const decay = Math.exp(-Math.abs(x[i] - at) / tau);
      sum = sum * decay + weights[i] * y[i];
      mass = mass * decay + weights[i];
      at = x[i];
      seen[i] = { sum, mass };
    }
    return seen;
  };
  const order = [...x.keys()].filter((i) => y[i] !== null);
  const left = pass(order), right = pass([...order].reverse());
  const mean = (i) => (left[i].sum + right[i].sum - weights[i] * y[i]) / (left[i].mass + right[i].mass - weights[i]);
  return { x: order.map((i) => x[i]), y: order.map(mean) };
}

// The places of values {number, text} on an axis of [0, 1], and its ticks: numbers by their size, or by its logarithm
// where they span decades; no more of them than `most` have a tick each. Other values are evenly spaced.
function placed(values, most = 6) {
  const numbers = values.map((value) => value?.number ?? null);
  const known = [...new Set(numbers.filter((value) => value !== null))].sort((a, b) => a - b);
  if (values.some((value) => value && value.number === null) || known.length < 2) {
    const texts = [...new Set(values.map((value) => value?.text ?? "–"))].sort();
    const at = (text) => texts.length > 1 ? texts.indexOf(text) / (texts.length - 1) : 0.5;
    return { at: values.map((value) => at(value?.text ?? "–")), ticks: texts.map((text) => [at(text), text]) };
  }
  const isLog = known[0] > 0 && known.at(-1) / known[0] >= 20;
  const [to, from] = isLog ? [Math.log, Math.exp] : [(value) => value, (value) => value];
  const low = to(known[0]), span = to(known.at(-1)) - low;
  const at = (value) => value === null ? null : (to(value) - low) / span;
  const marks = known.length <= most ? known : [0, 1, 2, 3, 4].map((part) => from(low + span * part / 4));
  return { at: numbers.map(at), ticks: marks.map((value) => [at(value), String(Number(value.toPrecision(3)))]), isLog };
}
