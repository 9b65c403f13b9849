// When calls ended: their density over time, drawn on a canvas. Drag over a part to see it alone; a double click shows all.

import { clock, el, fill, number, seconds } from "./dom.js";

const PARTS = [["done", "--ok"], ["failed", "--bad"], ["retried", "--warn"]];

export class Timeline {
  constructor(place) {
    this.place = place;
    this.whole = null;
    this.part = null; // from and to, in seconds since 1970
    this.data = null;
    this.drag = null;
    this.canvas = el("canvas", { role: "img", tabindex: "-1" });
    this.tip = el("span", { class: "tip" });
    this.all = el("button", { class: "plain", type: "button", hidden: true, on: { click: () => this.zoom(null) } }, "Show all");
    this.axis = el("div", { class: "axis" });
    this.again = () => this.draw();
    this.size = new ResizeObserver(this.again);
    document.addEventListener("theme", this.again);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", this.again);
    this.canvas.addEventListener("pointerdown", (event) => { this.drag = [this.at(event), this.at(event)]; this.canvas.setPointerCapture(event.pointerId); });
    this.canvas.addEventListener("pointermove", (event) => this.moved(event));
    this.canvas.addEventListener("pointerup", () => this.released());
    this.canvas.addEventListener("dblclick", () => this.zoom(null));
    this.canvas.addEventListener("pointerleave", () => { if (!this.drag) fill(this.tip); });
  }

  stop() {
    this.size.disconnect();
    document.removeEventListener("theme", this.again);
    matchMedia("(prefers-color-scheme: dark)").removeEventListener("change", this.again);
  }

  zoom(part) {
    this.part = part;
    this.show(this.whole);
  }

  show(data) {
    this.whole = data;
    this.data = data && data.buckets.length ? cut(data, this.part) : null;
    if (this.data === null) { fill(this.place); return; }
    if (!this.place.firstChild) {
      const legend = el("div", { class: "legend" }, PARTS.map(([name]) => el("span", {}, el("i", { class: name }), name)), this.all);
      fill(this.place, el("div", { class: "timeline" }, this.tip, this.canvas, this.axis), legend);
      this.size.observe(this.canvas);
    }
    this.all.hidden = this.part === null;
    const { start, width, buckets } = this.data;
    const end = start + width * buckets.length;
    const parts = [0, 0.25, 0.5, 0.75, 1].map((share) => el("span", {}, clock(start + share * (end - start))));
    fill(this.axis, parts);
    const sums = PARTS.map(([name], i) => `${number(buckets.reduce((sum, each) => sum + each[i], 0))} ${name}`);
    this.canvas.setAttribute("aria-label", `Calls over ${seconds(end - start)}: ${sums.join(", ")}`);
    this.draw();
  }

  draw() {
    if (this.data === null) return;
    const { clientWidth: wide, clientHeight: high } = this.canvas;
    const scale = devicePixelRatio || 1;
    this.canvas.width = wide * scale;
    this.canvas.height = high * scale;
    const paint = this.canvas.getContext("2d");
    paint.scale(scale, scale);
    const colours = PARTS.map(([, name]) => colour(name));
    const { buckets, width, start, bands } = this.data;
    const most = Math.max(1, ...buckets.map((each) => each[0] + each[1] + each[2]));
    const step = wide / buckets.length;
    for (const at of bands || []) {
      paint.fillStyle = colour("--line-strong");
      paint.fillRect(((at - start) / (width * buckets.length)) * wide, 0, 1.5, high);
    }
    buckets.forEach((counts, i) => {
      let top = high;
      counts.slice(0, 3).forEach((count, part) => {
        if (!count) return;
        const tall = Math.max(1.5, (count / most) * (high - 6));
        paint.fillStyle = colours[part];
        paint.fillRect(i * step, top - tall, Math.max(1, step - (step > 3 ? 1 : 0)), tall);
        top -= tall;
      });
    });
    if (this.drag) {
      const [from, to] = [...this.drag].sort((a, b) => a - b);
      paint.globalAlpha = 0.18;
      paint.fillStyle = colour("--accent");
      paint.fillRect(from * wide, 0, (to - from) * wide, high);
    }
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  }

  time(share) {
    return this.data.start + share * this.data.width * this.data.buckets.length;
  }

  moved(event) {
    if (this.data === null) return;
    const share = this.at(event);
    if (this.drag) { this.drag[1] = share; this.draw(); }
    const [done, failed, retried] = this.data.buckets[Math.min(this.data.buckets.length - 1, Math.floor(share * this.data.buckets.length))];
    fill(this.tip, `${clock(this.time(share))}  ${number(done)} done${failed ? `, ${number(failed)} failed` : ""}${retried ? `, ${number(retried)} retried` : ""}`);
  }

  released() {
    const drag = this.drag;
    this.drag = null;
    this.draw();
    if (drag && Math.abs(drag[0] - drag[1]) > 0.005) {
      const [from, to] = drag.sort((a, b) => a - b);
      this.zoom([this.time(from), this.time(to)]);
    }
  }
}

// The buckets of a part; of a part without any, the whole.
function cut(data, part) {
  if (part === null) return data;
  const at = (time) => Math.min(data.buckets.length, Math.max(0, (time - data.start) / data.width));
  const [from, to] = [Math.floor(at(part[0])), Math.ceil(at(part[1]))];
  return to > from ? { ...data, start: data.start + from * data.width, buckets: data.buckets.slice(from, to) } : data;
}

// A canvas knows no light-dark(): a node that has the colour says what it is now.
const probe = document.body.appendChild(el("span", { hidden: true }));

function colour(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}
