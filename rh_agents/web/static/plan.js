// What a resume would reuse and run, and why.

import { get } from "./api.js";
import { el, empty, fill, link, money, number, plural, rowTo, section, table, tokens } from "./dom.js";
import { headOf, requestsTable, toCall } from "./frame.js";

const FATES = [
  ["tried_again", "would be made again", "They failed, in an execution that has ended."],
  ["superseded", "would be made again", "Somebody asked for it."],
  ["unknown", "have an unknown outcome", "They were in flight when the process stopped, or are in flight now."],
  ["withdrawn", "would not be made", "Somebody cancelled them by name."],
  ["continued", "would continue", "They were between two attempts, or waited."],
  ["question", "wait for an answer", ""],
  ["repeated", "would fail again as recorded", "The program may have acted on the failure."],
];

export async function showPlan(main, route, shell) {
  const run = route.parts[1];
  const data = await get("run", { run }, route.signal);
  if (!route.isCurrent()) return null;
  const body = el("div", {}, el("p", { class: "quiet" }, "Making the plan…"));
  fill(main, headOf(data, "plan", shell), body);
  const plan = await get("plan", { run }, route.signal);
  if (route.isCurrent()) fill(body, planOf(run, plan));
  return null;
}

function planOf(run, plan) {
  const { counts } = plan;
  const again = ["tried_again", "superseded", "unknown", "continued"].reduce((sum, fate) => sum + counts[fate], 0);
  const used = plan.spent_before;
  return [
    el("div", { class: "numbers" }, [["reused", counts.reused, "ok"], ["would run", again, again ? "warn" : ""], ["fail again", counts.repeated, counts.repeated ? "bad" : ""], ...(counts.earlier ? [["of an earlier version", counts.earlier, ""]] : []), ["not reached", counts.not_reached, ""]].map(([text, count, tone]) => el("div", {}, el("b", { class: tone }, number(count)), el("span", {}, text))),
      el("div", {}, el("b", {}, money(used.cost) || tokens(used) || "–"), el("span", {}, "what those cost before"))),
    plan.is_idle ? empty("Nothing that is recorded would run again.", "What the program does with the results, and so what else it would call, cannot be known in advance.") : null,
    plan.requests.length ? section("Asked for, and applied at the next start", {}, requestsTable(plan.requests)) : null,
    plan.groups.length ? section("Groups that would continue", {}, table(["Group", ["Not begun", "n"]], plan.groups.map((group) => el("tr", {}, el("td", { class: "mono anywhere" }, group.address), el("td", { class: "n" }, group.not_begun === null ? "unknown" : number(group.not_begun)))), "Groups")) : null,
    FATES.map(([fate, text, why]) => (plan.calls[fate].length ? section(`${plural(counts[fate], "call")} ${text}`, {}, why ? el("p", { class: "quiet" }, why) : null, callsOf(run, plan.calls[fate]), counts[fate] > plan.calls[fate].length ? el("p", { class: "quiet" }, `The first ${plan.calls[fate].length} are shown.`) : null) : null)),
  ];
}

function callsOf(run, calls) {
  const rows = calls.map((call) => rowTo(toCall(run, call.key), call.key, el("td", { class: "cut mono" }, link(toCall(run, call.key), call.key, call.address)), el("td", { class: "bad cut", title: call.message }, call.message || ""), el("td", { class: "n" }, number(call.attempts))));
  return table(["Call", "", ["Attempts", "n"]], rows, "Calls");
}
