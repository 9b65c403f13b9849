// What happened when: the density of calls over time, when the run was executed, its groups, and single calls when few are
// in sight. Drag over a part to see it alone, or use the keyboard: arrows move, + and - zoom, Escape shows all.

import { Axis } from "./axis.js";
import { Bars } from "./bars.js";
import { clock, el, fill, number, plural, seconds } from "./dom.js";
import { toCalls } from "./frame.js";
import { Lanes } from "./lanes.js";

const PARTS = [["done", "--ok"], ["failed", "--bad"], ["retried", "--warn"], ["waited", "--wait"]];
const STRIP = 6;
const SHOWN_EXECUTIONS = 6;

export class Timeline {
  // `part` is what is seen first, from and to; `changed` is told when another one is. `isBrief`: neither groups nor calls.
  constructor(place, run, { part = null, changed = () => {}, isBrief = false } = {}) {
    Object.assign(this, { place, run, part, changed, isBrief });
    this.data = null;
    this.lanesData = null;
    this.drag = null;
    this.canvas = el("canvas", { role: "slider", tabindex: "0", "data-key": "timeline", "aria-valuemin": "0", "aria-valuemax": "100" });
    this.tip = el("span", { class: "tip" });
    this.axisNode = el("div", { class: "axis" });
    this.when = el("span", { class: "dim" });
    this.executions = el("div", { class: "executions" });
    this.bars = new Bars(run);
    this.lanes = new Lanes(run, paintCells);
    this.lanes.again = () => this.lanes.show(this.lanesData, this.axis, this.part);
    this.again = () => this.draw();
    this.size = new ResizeObserver(this.again);
    document.addEventListener("theme", this.again);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", this.again);
    this.canvas.addEventListener("pointerdown", (event) => { this.drag = [this.at(event), this.at(event)]; this.canvas.setPointerCapture(event.pointerId); });
    this.canvas.addEventListener("pointermove", (event) => this.moved(event));
    this.canvas.addEventListener("pointerup", () => this.released());
    this.canvas.addEventListener("dblclick", () => this.zoom(null));
    this.canvas.addEventListener("pointerleave", () => { if (!this.drag) fill(this.tip); });
    this.canvas.addEventListener("keydown", (event) => this.keyed(event));
  }

  stop() {
    this.size.disconnect();
    this.bars.stop();
    document.removeEventListener("theme", this.again);
    matchMedia("(prefers-color-scheme: dark)").removeEventListener("change", this.again);
  }

  // -- what is in sight ------------------------------------------------------------------------------------------------

  zoom(part, isSilent = false) {
    this.part = part === null ? null : part.map((time) => Math.round(time * 1000) / 1000);
    this.show(this.data, this.lanesData);
    if (!isSilent) this.changed(this.part);
  }

  // See `share` as much as now, moved by `by` of it.
  move(share, by) {
    const whole = this.whole();
    const [from, to] = this.part || whole;
    const middle = (from + to) / 2 + by * (to - from);
    const half = Math.max(this.data.width / 8, ((to - from) * share) / 2);
    if (2 * half >= whole[1] - whole[0]) return this.zoom(null);
    const start = Math.min(Math.max(middle - half, whole[0]), whole[1] - 2 * half);
    return this.zoom([start, start + 2 * half]);
  }

  whole() {
    const pieces = piecesOf(this.data);
    return [pieces[0][0], pieces[pieces.length - 1][1]];
  }

  keyed(event) {
    const doing = { ArrowLeft: [1, -0.25], ArrowRight: [1, 0.25], "+": [0.5, 0], "=": [0.5, 0], "-": [2, 0] }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (doing) this.move(...doing);
    else if (event.key === "Escape" || event.key === "0") this.zoom(null);
    else return;
    event.preventDefault();
  }

  // -- drawing ---------------------------------------------------------------------------------------------------------

  show(data, lanes = null) {
    this.data = data && data.pieces.length ? data : null;
    this.lanesData = lanes;
    if (this.data === null) { fill(this.place); return; }
    if (!this.place.firstChild) this.build();
    const [from, to] = this.part || this.whole();
    const cells = this.cells();
    const sums = PARTS.map(([name], at) => [name, cells.reduce((sum, cell) => sum + cell.counts[at], 0)]).filter(([, sum]) => sum);
    const said = sums.map(([name, sum]) => `${number(sum)} ${name}`).join(", ") || "nothing";
    fill(this.when, `${clock(from)} – ${clock(to)}: ${said}`);
    this.canvas.setAttribute("aria-label", "Calls over time: arrow keys move, plus and minus zoom, Escape shows all");
    this.canvas.setAttribute("aria-valuenow", String(Math.round(this.position())));
    this.canvas.setAttribute("aria-valuetext", `${clock(from)} to ${clock(to)}, ${seconds(to - from)}: ${said}`);
    for (const button of this.whenZoomed) button.hidden = this.part === null;
    this.callsLink.href = toCalls(this.run, this.part ? { from: this.part[0], until: this.part[1] } : {});
    fill(this.executions, executionsOf(this.data.executions, (part) => this.zoom(part)));
    this.executions.hidden = !this.executions.firstChild;
    this.draw();
  }

  build() {
    const button = (text, label, run) => el("button", { class: "plain", type: "button", title: label, "aria-label": label, "data-key": `time-${label}`, on: { click: run } }, text);
    const all = button("Show all", "Show all", () => this.zoom(null));
    const [back, forth] = [button("‹", "Earlier", () => this.move(1, -0.5)), button("›", "Later", () => this.move(1, 0.5))];
    this.callsLink = el("a", { href: "#", class: "button plain", "data-key": "time-calls" }, "Calls in this time");
    this.whenZoomed = [all, back, forth, this.callsLink];
    if (this.isBrief) this.callsLink.remove();
    const keys = PARTS.map(([name]) => el("span", {}, el("i", { class: name }), name));
    const legend = el("div", { class: "legend" }, keys, this.when, el("span", { class: "grow" }), button("+", "Zoom in", () => this.move(0.5, 0)), button("−", "Zoom out", () => this.move(2, 0)), back, forth, all, this.isBrief ? null : this.callsLink);
    const rest = this.isBrief ? null : [this.bars.node, this.lanes.node];
    fill(this.place, el("div", { class: "timeline" }, this.tip, this.canvas, this.axisNode, rest), legend, this.isBrief ? null : this.executions);
    this.size.observe(this.canvas);
  }

  cells() {
    const { width, pieces } = this.data;
    const cells = pieces.flatMap(({ first, buckets }) => buckets.map((counts, i) => ({ from: (first + i) * width, to: (first + i + 1) * width, counts })));
    return this.part === null ? cells : cells.filter(({ from, to }) => to > this.part[0] && from < this.part[1]);
  }

  position() {
    const [first, last] = this.whole();
    return this.part === null ? 50 : (100 * ((this.part[0] + this.part[1]) / 2 - first)) / Math.max(last - first, 1e-9);
  }

  draw() {
    if (this.data === null || !this.canvas.clientWidth) return;
    const cells = this.cells();
    this.axis = new Axis(piecesOf(this.data), this.part, this.canvas.clientWidth);
    const marks = [0, 0.25, 0.5, 0.75, 1].map((share) => this.axis.time(share * this.axis.wide));
    const length = this.axis.end - this.axis.start;
    const isShort = length < 8;
    const digits = length < 0.08 ? 3 : length < 0.8 ? 2 : 1; // so that no two marks say the same
    fill(this.axisNode, marks.map((time, at) => el("span", { class: at % 2 ? "hide-small" : null }, isShort ? `${clock(time)}.${(time % 1).toFixed(6).slice(2, 2 + digits)}` : clock(time))));
    paintCells(this.canvas, this.axis, cells, STRIP, (paint, high) => this.paintExecutions(paint, high));
    if (this.drag) this.paintDrag();
    if (this.isBrief) return;
    this.lanes.show(this.lanesData, this.axis, this.part);
    const count = cells.reduce((sum, { counts }) => sum + counts[0] + counts[1], 0);
    const all = this.data.pieces.reduce((sum, { buckets }) => sum + buckets.reduce((its, counts) => its + counts[0] + counts[1], 0), 0);
    this.bars.show(this.axis, this.part, count, all);
  }

  // Behind the bars: when nobody executed the run, and when what had been recorded was replayed.
  paintExecutions(paint, high) {
    for (const [from, to] of this.axis.gaps()) hatch(paint, from, to, high);
    this.data.executions.forEach((each, at) => {
      const [from, to] = [this.axis.x(each.began_at), Math.max(this.axis.x(each.began_at) + 2, this.axis.x(each.until))];
      paint.fillStyle = colour(at % 2 ? "--ink-3" : "--line-strong");
      paint.fillRect(from, 0, to - from, 3);
      if (!at) return;
      const replayed = this.axis.x(each.new_at === null ? each.until : each.new_at);
      paint.fillStyle = colour("--accent");
      paint.fillRect(from, 0, Math.max(2, replayed - from), 3);
      paint.globalAlpha = 0.12;
      paint.fillRect(from, 3, Math.max(2, replayed - from), high);
      paint.globalAlpha = 1;
      paint.fillRect(from, 0, 1, high);
    });
  }

  paintDrag() {
    const paint = this.canvas.getContext("2d");
    const [from, to] = [...this.drag].sort((a, b) => a - b);
    paint.globalAlpha = 0.18;
    paint.fillStyle = colour("--accent");
    paint.fillRect(from, 0, to - from, this.canvas.clientHeight);
    paint.globalAlpha = 1;
  }

  // -- the pointer -----------------------------------------------------------------------------------------------------

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return Math.min(box.width, Math.max(0, event.clientX - box.left));
  }

  moved(event) {
    if (this.data === null || !this.axis) return;
    const x = this.at(event);
    if (this.drag) { this.drag[1] = x; this.draw(); }
    const time = this.axis.time(x);
    const cell = this.cells().find(({ from, to }) => from <= time && time < to);
    const said = cell ? PARTS.map(([name], at) => (cell.counts[at] || !at ? `${number(cell.counts[at])} ${name}` : null)).filter(Boolean).join(", ") : "";
    fill(this.tip, `${clock(time)}  ${said}`);
  }

  released() {
    const drag = this.drag;
    this.drag = null;
    if (drag && Math.abs(drag[0] - drag[1]) > 3) {
      const [from, to] = drag.sort((a, b) => a - b);
      this.zoom([this.axis.time(from), this.axis.time(to)]);
    } else this.draw();
  }
}

// The part that an address names, from and until; null if it names none.
export function partOf(values) {
  const [from, until] = ["from", "until"].map((name) => Number.parseFloat(values.get(name)));
  return Number.isFinite(from) && Number.isFinite(until) && from < until ? [from, until] : null;
}

const piecesOf = ({ width, pieces }) => pieces.map(({ first, buckets }) => [first * width, (first + buckets.length) * width]);

// How often the run was executed, and what was between: each can be looked at alone.
function executionsOf(executions, zoom) {
  if (executions.length < 2) return null;
  const shown = executions.slice(-SHOWN_EXECUTIONS);
  const skipped = executions.length - shown.length;
  const items = shown.map((each, i) => {
    const at = skipped + i;
    const before = executions[at - 1];
    const away = before ? each.began_at - before.until : 0;
    const replay = at && each.before ? `, ${each.new_at === null ? "nothing new" : `${seconds(each.new_at - each.began_at)} of replay`} after ${plural(each.before, "recorded event")}` : "";
    return [
      away > 0.05 ? el("span", { class: "quiet" }, `no process for ${seconds(away)}`) : null,
      el("button", { class: "plain", type: "button", "data-key": `execution-${at}`, on: { click: () => zoom([each.began_at, Math.max(each.until, each.began_at + 0.05)]) } },
        `${at ? `Start ${at + 1}` : "First start"} ${clock(each.began_at)}, ${seconds(each.until - each.began_at)}${replay}`),
    ];
  });
  return [skipped ? el("span", { class: "quiet" }, `${plural(skipped, "start")} before`) : null, items];
}

// Bars of density on a canvas; below them, in a strip of so many pixels, how much of it had waited.
export function paintCells(canvas, axis, cells, strip, behind = () => {}) {
  const { clientWidth: wide, clientHeight: high } = canvas;
  const scale = devicePixelRatio || 1;
  canvas.width = wide * scale;
  canvas.height = high * scale;
  const paint = canvas.getContext("2d");
  paint.scale(scale, scale);
  behind(paint, high);
  const colours = PARTS.map(([, name]) => colour(name));
  const room = high - strip;
  const most = Math.max(1, ...cells.map(({ counts }) => counts[0] + counts[1] + counts[2]));
  for (const { from, to, counts } of cells) {
    const [left, right] = [axis.x(from), axis.x(to)];
    const broad = Math.max(1, right - left - (right - left > 3 ? 1 : 0));
    let top = room;
    counts.slice(0, 3).forEach((count, part) => {
      if (!count) return;
      const tall = Math.max(1.5, (count / most) * (room - 6));
      paint.fillStyle = colours[part];
      paint.fillRect(left, top - tall, broad, tall);
      top -= tall;
    });
    if (!counts[3]) continue;
    paint.fillStyle = colours[3];
    paint.globalAlpha = 0.25 + 0.75 * Math.min(1, counts[3] / Math.max(1, counts[0] + counts[1]));
    paint.fillRect(left, strip ? room + 1 : high - 3, broad, strip ? strip - 1 : 3);
    paint.globalAlpha = 1;
  }
}

function hatch(paint, from, to, high) {
  paint.save();
  paint.beginPath();
  paint.rect(from, 0, to - from, high);
  paint.clip();
  paint.strokeStyle = colour("--line-strong");
  for (let x = from - high; x < to; x += 6) {
    paint.beginPath();
    paint.moveTo(x, high);
    paint.lineTo(x + high, 0);
    paint.stroke();
  }
  paint.restore();
}

// A canvas knows no light-dark(): a node that has the colour says what it is now.
const probe = document.body.appendChild(el("span", { hidden: true }));

function colour(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}
