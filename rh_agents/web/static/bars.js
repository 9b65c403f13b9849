// Calls one by one, as bars from their beginning to their end, when few are in sight.

import { get, isExport } from "./api.js";
import { el, fill, seconds } from "./dom.js";
import { toCall } from "./frame.js";

const MOST_BARS = 200;
const BAR = 12;

export class Bars {
  constructor(run) {
    this.run = run;
    this.node = el("div", { class: "bars", hidden: true });
    this.calls = [];
    this.loading = null;
    this.waiting = 0;
    this.seen = "";
  }

  stop() {
    clearTimeout(this.waiting);
    if (this.loading) this.loading.abort();
  }

  // Show those in sight, of which there are about so many. `version` is another one when there may be others.
  show(axis, part, count, version) {
    this.axis = axis;
    const seen = `${part} ${count > MOST_BARS} ${version}`;
    if (seen === this.seen) return this.place();
    this.seen = seen;
    clearTimeout(this.waiting);
    if (this.loading) this.loading.abort();
    if (count > MOST_BARS || !count) {
      this.calls = [];
      return this.place();
    }
    this.waiting = setTimeout(() => this.load(part), 200);
    return this.place();
  }

  async load(part) {
    const mine = (this.loading = new AbortController());
    const window = part === null || isExport ? {} : { from: part[0], until: part[1] };
    try {
      const found = await get("calls", { run: this.run, ...window }, mine.signal);
      if (this.loading !== mine) return;
      const isAll = found.next === null && !found.is_cut;
      const fits = found.calls.filter((call) => part === null || ((call.ended_at === null || call.ended_at >= part[0]) && call.began_at <= part[1]));
      this.calls = isAll && fits.length <= MOST_BARS ? fits.sort((a, b) => a.began_at - b.began_at) : [];
    } catch (error) {
      if (error.name === "AbortError") return;
      this.calls = [];
    }
    this.place();
  }

  place() {
    this.node.hidden = !this.calls.length;
    const ends = [];
    const nodes = this.calls.filter((call) => call.began_at !== null).map((call) => {
      const left = this.axis.x(call.began_at);
      const right = call.ended_at === null ? this.axis.wide : this.axis.x(call.ended_at);
      const wide = Math.max(3, right - left);
      let row = ends.findIndex((end) => end <= left);
      if (row < 0) row = ends.length;
      ends[row] = left + wide + 1;
      const waited = call.waited ? `, ${seconds(call.waited)} of it waiting` : "";
      const text = `${call.address}: ${call.status}, ${call.ended_at === null ? "not ended" : seconds(call.seconds)}${waited}`;
      const bar = el("a", { class: `bar-of ${call.status}${call.ended_at === null ? " open" : ""}`, href: toCall(this.run, call.key), "data-key": `bar-${call.key}`, title: text, "aria-label": text });
      bar.style.left = `${left}px`;
      bar.style.width = `${wide}px`;
      bar.style.top = `${row * BAR}px`;
      return bar;
    });
    const inner = el("div", {}, nodes);
    inner.style.height = `${ends.length * BAR}px`;
    inner.style.position = "relative";
    fill(this.node, inner);
  }
}
