// The calls of a run: a table of which only what is in sight exists, filtered and sorted by the server.

import { get, isExport, query } from "./api.js";
import { el, empty, fill, link, money, number, pill, plural, seconds, tokens } from "./dom.js";
import { headOf, toCall, toCalls } from "./frame.js";
import { partOf, Timeline } from "./timeline.js";

const ROW = 30;
const SPARE = 12;
const STATUSES = [["", "Any status"], ["failed", "failed"], ["completed", "completed"], ["running", "in flight"], ["cancelled", "cancelled"]];
const RANGES = [["seconds", "Time, s"], ["waited", "Waited, s"], ["attempts", "Tries"], ["cost", "Cost, $"]];
const ENDS = RANGES.flatMap(([name]) => [`${name}_from`, `${name}_to`]);
const FILTERS = ["status", "actor", "group", "text", "order", "descending", "from", "until", ...ENDS];
const EXPORTED = [[{}, "As they ended"], [{ status: "failed" }, "Failed"], [{ order: "seconds", descending: 1 }, "Slowest"]];
const COLUMNS = [["Status"], ["Call"], ["Actor", "wide", "actor"], ["Error or input", "wide", "message"], ["Time", "n", "seconds"], ["Waited", "n wide", "waited"], ["Tries", "n wide", "attempts"], ["Tokens", "n wide", "tokens"], ["Cost", "n wide", "cost"]];

export async function showCalls(main, route, shell) {
  const run = route.parts[1];
  const wanted = Object.fromEntries(FILTERS.map((name) => [name, route.values.get(name) || ""]));
  const data = await get("run", { run }, route.signal);
  if (!route.isCurrent()) return null;
  const rows = new Rows(run, wanted);
  const timePlace = el("div", { class: "brief" });
  const timeline = new Timeline(timePlace, run, {
    part: partOf(route.values),
    isBrief: true,
    changed: (part) => change({ from: part ? part[0] : "", until: part ? part[1] : "" }),
  });
  const change = (values) => {
    Object.assign(wanted, values);
    if (timeline.part && !wanted.from && !wanted.until) timeline.zoom(null, true);
    history.replaceState(null, "", toCalls(run, wanted));
    fill(tools, filtersOf(data, wanted, change, run));
    fill(head, headCells(wanted, change));
    rows.anew();
  };
  const tools = el("div", { class: "filters" }, filtersOf(data, wanted, change, run));
  const head = el("div", { class: "grid-head" }, headCells(wanted, change));
  fill(main, headOf(data, "calls", shell), isExport ? null : timePlace, tools, el("div", { class: "grid", role: "grid", "aria-label": "Calls" }, head, rows.body), rows.count);
  if (!isExport) timeline.show(data.timeline);
  await rows.anew();
  return () => { rows.stop(); timeline.stop(); };
}

function filtersOf(data, wanted, change, run) {
  if (isExport) return EXPORTED.map(([values, text]) => link(toCalls(run, values), text, text)).map((each) => { each.className = "button"; return each; });
  const actors = (data.actors || []).map((actor) => actor.name);
  const groups = (data.groups ? data.groups.groups : []).map((group) => [group.id, group.name || group.address]);
  let waiting = 0;
  const typed = (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => change({ text: event.target.value }), 150);
  };
  const select = (name, label, options) => el("select", { "aria-label": label, "data-key": name, on: { change: (event) => change({ [name]: event.target.value }) } },
    options.map(([value, text]) => el("option", { value, selected: value === wanted[name] }, text)));
  const some = FILTERS.some((name) => wanted[name]);
  return [
    el("input", { type: "search", placeholder: "Address, name or error", "aria-label": "Address, name or error", "data-key": "text", value: wanted.text, on: { input: typed } }),
    select("status", "Status", STATUSES),
    actors.length > 1 || wanted.actor ? select("actor", "Actor", [["", "Any actor"], ...actors.map((name) => [name, name])]) : null,
    groups.length ? select("group", "Group", [["", "Any group"], ...groups]) : null,
    rangesOf(wanted, change),
    some ? el("button", { class: "plain", type: "button", "data-key": "none", on: { click: () => change(Object.fromEntries(FILTERS.map((name) => [name, ""]))) } }, "Clear") : null,
    el("span", { class: "grow" }),
    el("a", { class: "button", href: `./api/calls.csv?${query({ run, ...wanted })}`, download: "" }, "CSV"),
  ];
}

// From one number to another: what is set is open.
function rangesOf(wanted, change) {
  const set = ENDS.filter((name) => wanted[name] !== "").length;
  const box = (name, label) => el("input", { type: "number", step: "any", min: "0", "aria-label": label, "data-key": name, placeholder: name.endsWith("_to") ? "to" : "from", value: wanted[name], on: { change: (event) => change({ [name]: event.target.value }) } });
  const fields = RANGES.map(([name, text]) => el("label", { class: "range" }, el("span", {}, text), box(`${name}_from`, `${text}, from`), box(`${name}_to`, `${text}, to`)));
  return el("details", { class: "ranges", open: set > 0 }, el("summary", { class: "button", "data-key": "ranges" }, set ? plural(set, "range") : "Ranges"), el("div", { class: "range-fields" }, fields));
}

function headCells(wanted, change) {
  return COLUMNS.map(([text, kind, order]) => {
    if (!order || isExport) return el("span", { class: kind || null }, text);
    const isBy = wanted.order === order;
    const next = !isBy ? { order, descending: "1" } : wanted.descending ? { order, descending: "" } : { order: "", descending: "" };
    return el("span", { class: kind, role: "columnheader", "aria-sort": isBy ? (wanted.descending ? "descending" : "ascending") : "none" },
      el("button", { type: "button", "data-key": `by-${order}`, title: `Sort by ${text.toLowerCase()}`, on: { click: () => change(next) } }, text, isBy ? (wanted.descending ? " ↓" : " ↑") : ""));
  });
}

// What has been loaded, and the few rows of it that are in sight.
class Rows {
  constructor(run, wanted) {
    this.run = run;
    this.wanted = wanted;
    this.calls = [];
    this.next = "";
    this.shown = new Map();
    this.inner = el("div", {});
    this.inner.style.position = "relative";
    this.body = el("div", { class: "grid-body", tabindex: "-1" }, this.inner);
    this.count = el("p", { class: "quiet", role: "status" });
    this.body.addEventListener("scroll", () => this.draw(), { passive: true });
    this.size = new ResizeObserver(() => this.draw());
    this.size.observe(this.body);
    this.loading = null;
  }

  stop() {
    this.size.disconnect();
    if (this.loading) this.loading.abort();
  }

  async anew() {
    if (this.loading) this.loading.abort();
    this.loading = null;
    this.calls = [];
    this.next = "";
    await this.load(true);
  }

  async load(isFirst) {
    if (this.loading || this.next === null) return;
    const mine = (this.loading = new AbortController());
    fill(this.count, "Loading…");
    try {
      const window = await get("calls", { run: this.run, ...this.wanted, after: this.next }, mine.signal);
      if (this.loading !== mine) return;
      this.calls.push(...window.calls);
      this.next = window.next;
      this.isCut = Boolean(window.is_cut);
      if (isFirst) this.body.scrollTop = 0;
    } catch (error) {
      if (error.name === "AbortError") return;
      this.next = null;
      this.problem = error.message;
    }
    this.loading = null;
    this.draw(true);
  }

  draw(isNew = false) {
    if (isNew) {
      for (const row of this.shown.values()) row.remove();
      this.shown.clear();
    }
    this.inner.style.height = `${this.calls.length * ROW}px`;
    const from = Math.max(0, Math.floor(this.body.scrollTop / ROW) - SPARE);
    const to = Math.min(this.calls.length, Math.ceil((this.body.scrollTop + this.body.clientHeight) / ROW) + SPARE);
    for (const [at, row] of this.shown) {
      if ((at < from || at >= to) && row !== document.activeElement) {
        row.remove();
        this.shown.delete(at);
      }
    }
    for (let at = from; at < to; at += 1) if (!this.shown.has(at)) this.place(at);
    this.say();
    if (this.next !== null && !this.loading && this.calls.length && to + 40 >= this.calls.length) this.load(false);
  }

  place(at) {
    const row = rowOf(this.run, this.calls[at]);
    row.style.top = `${at * ROW}px`;
    const after = [...this.shown.keys()].filter((each) => each > at).sort((a, b) => a - b)[0];
    this.inner.insertBefore(row, after === undefined ? null : this.shown.get(after));
    this.shown.set(at, row);
  }

  say() {
    if (this.problem) fill(this.count, el("span", { class: "bad" }, this.problem));
    else if (!this.calls.length && this.next === null) fill(this.inner, empty("No call fits.", "Other filters may."));
    if (!this.problem) fill(this.count, this.isCut ? `The first ${number(this.calls.length)} calls; more are not in this file.` : this.next === null ? plural(this.calls.length, "call") : `${number(this.calls.length)} calls so far; more come as you scroll`);
  }
}

function rowOf(run, call) {
  return el("a", { class: "grid-row", role: "row", href: toCall(run, call.key), "data-key": call.key },
    el("span", { role: "gridcell" }, pill(call.status)),
    el("span", { role: "gridcell", class: "mono tail", title: call.address }, el("bdi", {}, call.address)),
    el("span", { role: "gridcell", class: "dim wide" }, call.actor),
    el("span", { role: "gridcell", class: "bad wide", title: call.message || "" }, call.message || el("span", { class: "quiet mono" }, call.input || "")),
    el("span", { role: "gridcell", class: "n" }, seconds(call.seconds)),
    el("span", { role: "gridcell", class: "n wide" }, call.waited ? seconds(call.waited) : ""),
    el("span", { role: "gridcell", class: "n wide" }, call.attempts > 1 ? el("span", { class: "warn" }, call.attempts) : call.attempts || ""),
    el("span", { role: "gridcell", class: "n wide" }, tokens(call.usage || {})),
    el("span", { role: "gridcell", class: "n wide" }, money((call.usage || {}).cost)));
}
