// What happened in which groups: a lane of density for the groups at each place of the program, nested ones below.

import { el, fill, link, number, plural } from "./dom.js";
import { toCalls } from "./frame.js";

export class Lanes {
  constructor(run, paint) {
    this.run = run;
    this.paint = paint; // draws cells on a canvas
    this.node = el("div", { class: "lanes", hidden: true });
    this.open = new Set();
    this.drawn = [];
  }

  show(data, axis, part) {
    const lanes = (data && data.lanes) || [];
    this.node.hidden = !lanes.length;
    this.drawn = [];
    const names = new Set(lanes.map((lane) => lane.name));
    const rows = [];
    for (const lane of lanes) {
      const around = ancestors(lane.name).filter((name) => names.has(name));
      if (!around.every((name) => this.open.has(name))) continue;
      rows.push(this.row(data, lane, around, lanes.some((other) => other.name.startsWith(`${lane.name}::`)), axis, part));
    }
    const hidden = data ? data.total - lanes.length : 0;
    fill(this.node, rows, hidden > 0 ? el("p", { class: "quiet" }, `${plural(hidden, "further place")} with groups, not shown.`) : null);
    this.draw(axis);
  }

  row(data, lane, around, hasInner, axis, part) {
    const cells = cellsOf(lane, data.width).filter(({ from, to }) => part === null || (to > part[0] && from < part[1]));
    const sum = (at) => cells.reduce((all, cell) => all + cell.counts[at], 0);
    const name = around.length ? lane.name.slice(around[around.length - 1].length + 2) : lane.name;
    const isOpen = this.open.has(lane.name);
    const label = hasInner
      ? el("button", { class: "plain", type: "button", "aria-expanded": String(isOpen), "data-key": `lane-${lane.name}`, on: { click: () => this.toggle(lane.name) } }, isOpen ? "▾ " : "▸ ", name)
      : el("span", { class: "lane-name" }, name);
    const last = lane.name.split("::").pop();
    const filter = { ...(lane.id ? { group: lane.id } : { text: `${last}[` }), ...(part ? { from: part[0], until: part[1] } : {}) };
    const text = `${number(sum(0))} done${sum(1) ? `, ${number(sum(1))} failed` : ""}${sum(2) ? `, ${number(sum(2))} retried` : ""}${sum(3) ? `, ${number(sum(3))} waited` : ""}`;
    const canvas = el("canvas", { role: "img", "aria-label": `${lane.name}: ${text}` });
    this.drawn.push([canvas, cells]);
    return el("div", { class: `lane indent-${Math.min(4, around.length)}` },
      el("div", { class: "lane-head" }, label, lane.groups > 1 ? el("span", { class: "quiet" }, plural(lane.groups, "group")) : null,
        lane.name === "…" ? el("span", { class: "quiet" }, text) : link(toCalls(this.run, filter), `lane-calls-${lane.name}`, text)),
      canvas);
  }

  toggle(name) {
    if (!this.open.delete(name)) this.open.add(name);
    this.again();
  }

  draw(axis) {
    for (const [canvas, cells] of this.drawn) this.paint(canvas, axis, cells, 0);
  }
}

// A cell after the other: the number of a bucket, and its four counts.
function cellsOf(lane, width) {
  const cells = [];
  for (let i = 0; i < lane.cells.length; i += 5) {
    cells.push({ from: lane.cells[i] * width, to: (lane.cells[i] + 1) * width, counts: lane.cells.slice(i + 1, i + 5) });
  }
  return cells;
}

function ancestors(name) {
  const parts = name.split("::");
  return parts.slice(0, -1).map((_, at) => parts.slice(0, at + 1).join("::"));
}
