// What all views of a run have: its head, and the addresses of its views.

import { isExport, query } from "./api.js";
import { actionsOf } from "./actions.js";
import { el, link, plural, since } from "./dom.js";

const TABS = [["", "Overview"], ["calls", "Calls"], ["questions", "Questions"], ["plan", "Plan"], ["compare", "Compare"]];
const KEPT_TABS = ["", "calls", "plan"];

export const toRun = (run, rest = "") => `#/run/${encodeURIComponent(run)}${rest}`;

export function statusOf(run) {
  if (run.status === "interrupted" && run.untouched) return "forked, not started";
  if (run.status === "waiting" && run.questions === 0) return "answered, to be resumed";
  return run.status;
}

export const toCall = (run, key) => toRun(run, `/call/${key}`);
export const toCalls = (run, values = {}) => toRun(run, `/calls${query(values) && "?"}${query(values)}`);

// The head that all views of a run have.
export function headOf(run, tab, shell, now = null) {
  shell.crumbs([run.run_id, tab ? toRun(run.run_id) : null], ...(tab && tab !== "call" ? [[TABS.find(([name]) => name === tab)[1]]] : []));
  const about = [
    run.workflow && el("span", { class: "mono cut" }, run.workflow),
    el("span", {}, "started ", since(run.created_at)),
    el("span", {}, "last activity ", since(run.updated_at)),
    run.owner && el("span", { class: "cut", title: run.owner }, `by ${run.owner.split(" (")[0]}`),
    run.epoch ? el("span", {}, `restarted ${plural(run.epoch, "time")} after its end`) : null,
    run.forked_from && el("span", {}, "a copy of ", link(toRun(run.forked_from), null, run.forked_from)),
  ];
  return [
    el("div", { class: "head" },
      el("div", { class: "grow" },
        el("div", { class: "title" }, el("h1", { class: "mono" }, run.run_id), el("span", { class: `pill ${run.status}`, "data-status": run.status }, statusOf(run)), run.tags.map((tag) => el("span", { class: "tag" }, tag))),
        el("div", { class: "about" }, about)),
      isExport ? null : el("div", { class: "tools" }, actionsOf(run, shell.about, now))),
    el("nav", { class: "tabs", "aria-label": "Views of this run" }, TABS.filter(([name]) => !isExport || KEPT_TABS.includes(name)).map(([name, text]) =>
      el("a", { href: toRun(run.run_id, name && `/${name}`), "aria-current": name === tab ? "page" : null, "data-key": `tab-${name}` }, text,
        name === "questions" && run.questions ? [" ", el("span", { class: "badge" }, run.questions)] : null))),
    run.reason && run.status !== "waiting" ? el("div", { class: "note warn" }, run.reason) : null,
  ];
}
