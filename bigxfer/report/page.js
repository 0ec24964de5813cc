"use strict";
// Shows the panels that match the choices, without the lines that are switched off.
const DATA = JSON.parse(document.getElementById("data").textContent);
const KEYS = Object.keys(DATA.choices); // target, metric, model, shots, and label where there are classes
const WIDE = ["differences", "crossovers", "classes"]; // on paper
const state = { off: new Set() };
for (const key of KEYS)
  state[key] = DATA.start[key] ?? Object.keys(DATA.choices[key])[0] ?? "";

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const make = (tag, more = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), more);
  node.append(...children);
  return node;
};

const matches = (panel) =>
  KEYS.every((k) => !panel[k] || !state[k] || panel[k] === state[k]);

function themed(layout, width) {
  const axis = {
    gridcolor: css("--grid"), linecolor: css("--rule"), zeroline: false,
    tickfont: { size: 11 }, automargin: true, fixedrange: true,
  };
  const out = {
    ...layout,
    font: { family: "system-ui, sans-serif", size: 12, color: css("--ink") },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 56, r: 12, t: 10, b: 44, ...layout.margin }, showlegend: false, hovermode: "closest",
    hoverlabel: { bgcolor: css("--card"), font: { color: css("--ink"), size: 12 }, align: "left" },
  };
  for (const name of ["xaxis", "yaxis"]) {
    out[name] = { ...axis, ...layout[name] };
    out[name].ticktext ??= layout[name].tickvals?.map((v) => String(+v.toPrecision(3)));
    out[name].title = { ...layout[name].title, font: { size: 12, color: css("--soft") }, standoff: 8 };
  }
  return out;
}

// A long pair in several lines, cut before the second name and after commas.
const NARROW = matchMedia("(max-width: 600px)");
function broken(label) {
  const most = NARROW.matches ? 26 : 56; // letters of a line
  if (label.length <= most) return label;
  const lines = [];
  for (const side of label.split(/ (?=(?:−|over) )/)) {
    let line = "";
    for (const piece of side.split(/(?<=, )/)) {
      if (line && (line + piece).length > most) lines.push(line), line = "";
      line += piece;
    }
    lines.push(line);
  }
  return lines.map((line) => line.trim()).join("<br>");
}

const hidden = (line) => state.off.has(line);

// A trace of the data as plotly needs it, or null where its line is switched off.
function drawn(trace) {
  const { line, other, rows, sources } = trace.meta ?? {};
  if (rows) return drawnMatrix(trace);
  if (trace.meta?.confusion) return hidden(line) ? null : drawnConfusion(trace);
  if (hidden(line) || hidden(other)) return null;
  if (!line) return trace;
  const { name, colour, symbol, own } = DATA.lines[line];
  const { up, down, across } = trace.meta;
  const about = own ? `<b>${name}</b><br>${own}` : `<b>${name}</b>`;
  const out = { ...trace, name };
  out.line = { color: colour, width: 1.8, ...trace.line };
  if (other) out.y = trace.y.map(broken);
  if (trace.fill) out.fillcolor = colour + "24";
  if (trace.meta.axes) return drawnCurve(out, about);
  if (!sources) return out;
  out.marker = { color: colour, symbol, size: 8, ...trace.marker };
  if (up) out[across ? "error_x" : "error_y"] =
    { type: "data", symmetric: false, array: up, arrayminus: down, thickness: 1.2, width: 2 };
  out.hovertext = trace.text.map((text, i) =>
    `${about}<br>${text}<br>${DATA.strings[sources[i]]}`);
  out.hoverinfo = "text";
  delete out.text;
  return out;
}

const short = (v) => String(+v.toPrecision(3));
const ends = (low, high) => (low == null || high == null ? "" : ` [${short(low)}, ${short(high)}]`);

// The curve; its band is a trace of its own.
function drawnCurve(trace, about) {
  const { axes, band, runs, source } = trace.meta;
  const [low, high] = band ?? [[], []];
  trace.hovertext = trace.x.map((x, i) => trace.y[i] == null ? "" : [
    about, `${axes[0]} ${short(x)}: ${axes[1]} ${short(trace.y[i])}${ends(low[i], high[i])}, n=${runs}`,
    DATA.strings[source],
  ].join("<br>"));
  trace.hoverinfo = "text";
  return trace;
}

function bandOf(trace) {
  const { line, band, axes } = trace.meta ?? {};
  if (!axes || !band || hidden(line)) return null;
  const known = [...trace.x.keys()].filter((i) => band[0][i] != null && band[1][i] != null);
  if (known.length < 2) return null;
  const back = [...known].reverse();
  return {
    type: "scatter", mode: "lines", fill: "toself", hoverinfo: "skip", showlegend: false,
    x: [...known, ...back].map((i) => trace.x[i]),
    y: [...known.map((i) => band[0][i]), ...back.map((i) => band[1][i])],
    line: { width: 0.6, color: DATA.lines[line].colour + "80" }, fillcolor: DATA.lines[line].colour + "16",
  };
}

// The bands lie behind all curves.
const tracesOf = (panel) =>
  [...panel.figure.data.map(bandOf), ...panel.figure.data.map(drawn)].filter(Boolean);

function drawnConfusion(trace) {
  const { confusion, source, runs, line } = trace.meta;
  const cells = (say) => trace.z.map((row, i) => row.map((z, j) => (z === null ? "" : say(z, i, j))));
  return {
    ...trace,
    text: cells((z) => z.toFixed(2)), texttemplate: "%{text}",
    hovertext: cells((z, i, j) => [
      `<b>${DATA.lines[line].name}</b>`,
      `of ${trace.y[i]} called ${trace.x[j]}: ${z.toFixed(2)} ${confusion[i][j]}, n=${runs}`,
      DATA.strings[source],
    ].join("<br>")),
    hoverinfo: "text",
    colorscale: [[0, css("--card")], [1, "#0072B2"]],
  };
}

// The numbers of a matrix with their intervals, for the keyboard and for paper.
function numbers(panel) {
  const trace = tracesOf(panel).find((t) => t.type === "heatmap");
  if (!trace) return null;
  const { marks, confusion } = trace.meta;
  const kept = marks ? trace.y.map((name) => panel.figure.data[0].y.map(broken).indexOf(name)) : [...trace.y.keys()];
  const cell = (i, j) => {
    const value = trace.text[i][j];
    const interval = confusion ? confusion[i][j] : panel.figure.data[0].hovertext[kept[i]][j];
    return make("td", {}, make("b", {}, value), ` ${value ? interval : ""}`);
  };
  const head = make("tr", {}, ...["", ...trace.x].map((name) => make("th", { scope: "col" }, name)));
  const fill = (details) => {
    if (details.childElementCount > 1) return;
    const rows = trace.y.map((name, i) => make("tr", {},
      make("th", { scope: "row" }, name.replaceAll("<br>", " ")), ...trace.x.map((_, j) => cell(i, j))));
    details.append(make("div", { className: "scroll" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows))));
  };
  const node = make("details", { className: "numbers" }, make("summary", {}, "Intervals in numbers"));
  node.fill = () => fill(node);
  node.ontoggle = node.fill;
  return node;
}

const points = (z) => (z === null ? "" : (z > 0 ? "+" : "") + z.toFixed(1));

function drawnMatrix(trace) {
  const { rows, sources, marks } = trace.meta;
  const kept = [...rows.keys()].filter((i) => !rows[i].some(hidden));
  if (!kept.length) return null;
  const cells = (say) => kept.map((i) => trace.z[i].map((z, j) => say(z, i, j)));
  return {
    ...trace,
    z: kept.map((i) => trace.z[i]),
    y: kept.map((i) => broken(trace.y[i])),
    text: cells((z, i, j) => points(z) + marks[i][j]),
    hovertext: cells((z, i, j) => [
      `<b>${trace.y[i]}</b>`, `shots: ${parseInt(trace.x[j]) || trace.x[j]}`,
      `${points(z)} points ${trace.hovertext[i][j]}`, DATA.strings[sources[i][j]],
    ].join("<br>")),
    hoverinfo: "text",
    colorscale: [[0, "#D55E00"], [0.5, css("--card")], [1, "#0072B2"]],
  };
}

function heightOf(panel, traces) {
  const all = panel.figure.data[0].meta?.rows?.length;
  if (!all) return panel.height;
  const most = Math.max(...traces[0].y.map((name) => name.split("<br>").length));
  const row = most > 1 ? 14 * most + 4 : 24;
  return panel.height - 24 * all + row * traces[0].y.length;
}

const titleOf = (panel) => (DATA.synthetic ? "SYNTHETIC " : "") + panel.title;

function save(panel, format) {
  const data = tracesOf(panel);
  const layout = themed(panel.figure.layout);
  const legend = data.filter((t) => t.name && t.showlegend !== false).length > 1;
  Object.assign(layout, {
    title: { text: titleOf(panel), font: { size: 16 } }, showlegend: legend,
    paper_bgcolor: css("--card"), margin: { l: 70, r: 20, t: 50, b: 60 },
    legend: { orientation: "h", y: -0.2 },
  });
  const name = `${panel.section} ${titleOf(panel)} ${panel.metric ?? ""}`.replace(/[^\w+-]+/g, "_");
  const height = Math.max(480, heightOf(panel, data) + 60);
  return Plotly.toImage({ data, layout }, { format, width: 900, height, scale: format === "png" ? 2 : 1 })
    .then((url) => make("a", { href: url, download: `${name}.${format}` }).click());
}

function figure(panel) {
  const traces = tracesOf(panel);
  if (!traces.some((t) => t.meta)) return null;
  const plot = make("div", { className: "plot" });
  plot.style.height = `${heightOf(panel, traces)}px`;
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", `${panel.section}: ${titleOf(panel)}`);
  const buttons = ["svg", "png"].map((format) =>
    make("button", { type: "button", title: `save as ${format}`, onclick: () => save(panel, format) }, format));
  const caption = make("figcaption", {}, make("span", {}, titleOf(panel)), ...buttons);
  const wide = WIDE.includes(panel.section) ? " wide" : "";
  const node = make("figure", { className: `panel${wide}` }, ...[caption, plot, numbers(panel)].filter(Boolean));
  node.draw = () => node.drawn = Plotly.newPlot(plot, traces, themed(panel.figure.layout), { displayModeBar: false, responsive: true });
  return node;
}

function legend(section, panels) {
  const lines = new Set();
  for (const panel of panels)
    for (const { meta } of panel.figure.data) {
      for (const name of [meta?.line, meta?.other, ...(meta?.rows?.flat() ?? [])])
        if (name) lines.add(name);
    }
  const items = Object.keys(DATA.lines).filter((line) => lines.has(line)).map((line) => {
    const { name, colour, glyph, own } = DATA.lines[line];
    const mark = make("b", {}, glyph);
    mark.style.color = colour;
    const button = make("button", { type: "button", title: own ? `${line}: ${own}` : line }, mark, name);
    if (own.includes("NOT LEARNED")) button.append(make("i", {}, " not learned"));
    button.setAttribute("aria-pressed", String(!hidden(line)));
    button.onclick = () => {
      hidden(line) ? state.off.delete(line) : state.off.add(line);
      render();
    };
    return make("li", {}, button);
  });
  section.querySelector(".legend").replaceChildren(...items);
}

function render() {
  for (const node of document.querySelectorAll(".panel")) // which may still be drawing
    node.drawn.then(() => Plotly.purge(node.querySelector(".plot")));
  for (const section of document.querySelectorAll("main section")) {
    const panels = DATA.panels.filter((p) => p.section === section.id && matches(p));
    const drawable = panels.filter((p) => p.figure);
    legend(section, drawable);
    const figures = drawable.map(figure).filter(Boolean);
    const says = panels.filter((p) => p.html).map((p) => make("div", { innerHTML: `<p>${p.html}</p>` }));
    if (drawable.length && !figures.length) says.push(make("p", {}, "Every line is switched off."));
    section.querySelector(".none").hidden = panels.length > 0;
    section.querySelector(".says").replaceChildren(...says);
    section.querySelector(".grid").replaceChildren(...figures);
    for (const node of figures) node.draw();
  }
  document.getElementById("showing").textContent = KEYS.map((k) => DATA.choices[k][state[k]]).join(" · ");
}

for (const key of KEYS) {
  const options = Object.entries(DATA.choices[key]).map(([value, name]) => make("option", { value }, name));
  const select = make("select", { id: `choose-${key}` }, ...options);
  select.value = state[key];
  select.onchange = () => { state[key] = select.value; render(); };
  document.querySelector(".selects").append(make("label", {}, key === "label" ? "class" : key, select));
}
if (NARROW.matches) document.getElementById("filters").open = false;
// On paper: light, and figures as wide as half a page, or the page.
let before = null;
window.addEventListener("beforeprint", () => {
  before = document.documentElement.classList.contains("dark");
  theme.set(false);
  for (const node of document.querySelectorAll("details.numbers")) {
    node.fill();
    node.open = true;
  }
  for (const node of document.querySelectorAll(".panel")) {
    const plot = node.querySelector(".plot"), wide = node.classList.contains("wide");
    if (!wide) plot.style.height = "250px";
    const size = { width: wide ? 680 : 325, height: plot.clientHeight };
    const fonts = ["font", "xaxis.tickfont", "yaxis.tickfont", "xaxis.title.font", "yaxis.title.font"];
    Plotly.relayout(plot, { ...size, ...Object.fromEntries(fonts.map((f) => [`${f}.size`, 9])) });
  }
});
window.addEventListener("afterprint", () => theme.set(before));

theme.drawn = render;
render();
document.body.dataset.ready = "true";
