// All runs.

import { follow, get, query } from "./api.js";
import { barOf, el, empty, fill, link, money, number, plural, rowTo, since, table, tokens } from "./dom.js";
import { statusOf, toRun } from "./frame.js";

const RUN_STATUSES = ["pending", "running", "waiting", "interrupted", "completed", "failed", "cancelled", "damaged"];

export async function showRuns(main, route, shell) {
  shell.crumbs();
  const wanted = Object.fromEntries(["status", "tag", "text", "before"].map((name) => [name, route.values.get(name) || ""]));
  const list = el("div", {});
  const change = (values) => {
    Object.assign(wanted, values, { before: "" }); // another list begins at its newest run
    history.replaceState(null, "", toRuns(wanted));
    load();
  };
  const load = async () => {
    const found = await get("runs", wanted);
    if (!route.isCurrent()) return;
    shell.questions(found.runs.reduce((sum, run) => sum + run.questions, 0));
    fill(list, found.problem ? el("div", { class: "note bad", role: "alert" }, el("b", {}, "Open questions cannot be read: "), found.problem) : null, found.runs.length ? runsTable(found.runs) : nothing(wanted));
    fill(count, plural(found.total, "run"), found.total > found.runs.length && found.runs.length ? `, ${number(found.newer + 1)} to ${number(found.newer + found.runs.length)} are shown` : "");
    fill(pages, wanted.before ? link(toRuns({ ...wanted, before: "" }), "newest", "Newest") : null, found.older ? link(toRuns({ ...wanted, before: found.older }), "older", "Older") : null);
    fill(tags, el("option", { value: "" }, "Any tag"), found.tags.map((tag) => el("option", { value: tag, selected: tag === wanted.tag }, tag)));
    tags.hidden = !found.tags.length;
  };
  const count = el("span", { class: "quiet" });
  const pages = el("nav", { class: "pages", "aria-label": "Further runs" });
  const tags = el("select", { "aria-label": "Tag", on: { change: (event) => change({ tag: event.target.value }) } });
  const search = el("input", { type: "search", placeholder: "Name or workflow", "aria-label": "Name or workflow", value: wanted.text, on: { input: (event) => change({ text: event.target.value }) } });
  const status = el("select", { "aria-label": "Status", on: { change: (event) => change({ status: event.target.value }) } },
    el("option", { value: "" }, "Any status"), RUN_STATUSES.map((name) => el("option", { value: name, selected: name === wanted.status }, name)));
  await load();
  fill(main, el("h1", { class: "visually-hidden" }, "Runs"), el("div", { class: "filters" }, search, status, tags, el("span", { class: "grow" }), count), list, pages);
  return follow("runs/events", {}, null, load, (state) => shell.live(state));
}

const toRuns = (wanted) => `#/${query(wanted) && "?"}${query(wanted)}`;

function nothing(wanted) {
  if (wanted.before) return empty("No older run fits.", "The newest stand on the first page.");
  if (wanted.status || wanted.tag || wanted.text) return empty("No run fits.", "Other words or another status may.");
  return empty("No runs yet.", "A run appears here as soon as it begins.", "rh-agents map module:function items.jsonl");
}

function runsTable(runs) {
  const heads = ["Run", "Status", ["Workflow", "hide-small"], ["Calls", "n"], ["Failed", "n"], ["Tokens", "n hide-small"], ["Cost", "n hide-small"], ["Questions", "n hide-small"], ["Tags", "hide-small"], ["Owner", "hide-small"], ["Activity", "n"]];
  return table(heads, runs.map(runRow), "Runs");
}

function runRow(run) {
  if (run.damage) {
    return el("tr", { "data-row": run.run_id }, el("td", { class: "mono cut" }, link(toRun(run.run_id), run.run_id, run.run_id)),
      el("td", {}, el("span", { class: "pill failed" }, "damaged")), el("td", { class: "bad anywhere", colspan: 9 }, run.damage));
  }
  return rowTo(toRun(run.run_id), run.run_id,
    el("td", { class: "mono cut" }, link(toRun(run.run_id), run.run_id, run.run_id)),
    el("td", {}, el("span", { class: `pill ${run.status}` }, run.paused_at && run.status === "running" ? "paused" : statusOf(run)), run.status === "running" && run.total ? barOf({ done: run.finished - run.finished_failed, failed: run.finished_failed, running: run.in_flight, cancelled: 0, total: run.total }) : null),
    el("td", { class: "dim hide-small" }, run.validates ? `validation of ${run.validates}` : run.workflow),
    el("td", { class: "n" }, number(run.outcomes)),
    el("td", { class: "n bad" }, run.failed || ""),
    el("td", { class: "n hide-small" }, tokens(run.usage || {})),
    el("td", { class: "n hide-small" }, money((run.usage || {}).cost)),
    el("td", { class: "n hide-small" }, run.questions ? el("span", { class: "badge" }, run.questions) : ""),
    el("td", { class: "hide-small" }, run.tags.flatMap((tag) => [el("span", { class: "tag" }, tag), " "])),
    el("td", { class: "dim hide-small nowrap" }, run.owner ? run.owner.split(" (")[0] : ""),
    el("td", { class: "n dim" }, since(run.updated_at)));
}

