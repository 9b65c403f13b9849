// What all views of a run have: its head, and the addresses of its views.

import { isExport, query } from "./api.js";
import { actionsOf } from "./actions.js";
import { el, link, plural, since, table } from "./dom.js";

const TABS = [["", "Overview"], ["calls", "Calls"], ["questions", "Questions"], ["plan", "Plan"], ["compare", "Compare"]];
const OTHERS = { groups: ["groups", "Groups"] };
const KEPT_TABS = ["", "calls", "plan"];

export const toRun = (run, rest = "") => `#/run/${encodeURIComponent(run)}${rest}`;

export function statusOf(run) {
  if (run.status === "interrupted" && run.untouched) return "forked, not started";
  if (run.status === "pending") return `pending in queue ${run.queue}${run.priority ? `, priority ${run.priority}` : ""}${run.ready_at > Date.now() / 1000 ? `, not before ${new Date(run.ready_at * 1000).toLocaleString()}` : ""}`;
  if (run.status === "interrupted" && run.ready_at) return `interrupted, in queue ${run.queue}`;
  if (run.status === "waiting" && run.questions === 0 && run.reason && !run.reason.startsWith("waiting for an answer")) return run.reason;
  if (run.status === "waiting" && run.questions === 0) return run.ready_at ? `answered, in queue ${run.queue}` : "answered, to be resumed";
  return run.status;
}

export const toCall = (run, key) => toRun(run, `/call/${key}`);
export const toCalls = (run, values = {}) => toRun(run, `/calls${query(values) && "?"}${query(values)}`);

// What people asked of a run, and what came of it.
export function requestsTable(requests) {
  const rows = requests.map((each) => el("tr", {}, el("td", { class: "dim" }, since(each.asked_at)), el("td", {}, each.verb, " ", el("span", { class: "mono anywhere" }, whatOf(each))), el("td", { class: "anywhere" }, each.refused ? el("span", { class: "bad" }, each.refused) : each.text || el("span", { class: "quiet" }, "open"), each.reason ? el("div", { class: "quiet" }, each.reason) : null), el("td", { class: "dim" }, each.author || "")));
  return table(["When", "What", "", "By"], rows, "Requests");
}

function whatOf({ arguments: given }) {
  const settings = Object.entries(given.settings || {}).map(([name, value]) => `${name}=${value}`);
  return [...settings, ...(given.failed ? ["--failed"] : given.items || [])].slice(0, 5).join(" ");
}

// The head that all views of a run have. `data` is what the page of the run shows.
export function headOf(data, tab, shell) {
  const { run, now, totals } = data;
  shell.crumbs([run.run_id, tab ? toRun(run.run_id) : null], ...(tab && tab !== "call" ? [[(TABS.find(([name]) => name === tab) || OTHERS[tab])[1]]] : []));
  const about = [
    run.workflow && el("span", { class: "mono cut" }, run.workflow),
    el("span", {}, "started ", since(run.created_at)),
    el("span", {}, "last activity ", since(run.updated_at)),
    run.owner && el("span", { class: "cut", title: run.owner }, `by ${run.owner.split(" (")[0]}`),
    run.epoch ? el("span", {}, `restarted ${plural(run.epoch, "time")} after its end`) : null,
    run.validates && el("span", {}, "a validation of ", link(toRun(run.validates), null, run.validates)),
    run.forked_from && el("span", {}, "a copy of ", link(toRun(run.forked_from), null, run.forked_from)),
  ];
  return [
    el("div", { class: "head" },
      el("div", { class: "grow" },
        el("div", { class: "title" }, el("h1", { class: "mono" }, run.run_id), el("span", { class: `pill ${run.status}`, "data-status": run.status }, statusOf(run)), run.tags.map((tag) => el("span", { class: "tag" }, tag))),
        el("div", { class: "about" }, about)),
      isExport ? null : el("div", { class: "tools" }, actionsOf(run, shell.about, now, totals))),
    el("nav", { class: "tabs", "aria-label": "Views of this run" }, TABS.filter(([name]) => !isExport || KEPT_TABS.includes(name)).map(([name, text]) =>
      el("a", { href: toRun(run.run_id, name && `/${name}`), "aria-current": name === tab ? "page" : null, "data-key": `tab-${name}` }, text,
        name === "questions" && run.questions ? [" ", el("span", { class: "badge" }, run.questions)] : null))),
    run.is_older ? el("div", { class: "note" }, "Begun by an earlier version of rh_agents: what calls were called with, and what was going on, may not be recorded.") : null,
    run.reason && run.status !== "waiting" ? el("div", { class: "note warn" }, run.reason) : null,
  ];
}
