// Two runs, item by item.

import { get } from "./api.js";
import { differences } from "./differences.js";
import { el, empty, fill, link, money, number, seconds, tokens } from "./dom.js";
import { headOf, toCall, toRun } from "./frame.js";

const KINDS = { different: "different", left_only: "only here", right_only: "only there" };

export async function showCompare(main, route, shell) {
  const left = route.parts[1];
  const right = route.values.get("with") || "";
  const [data, { runs }] = await Promise.all([get("run", { run: left }, route.signal), get("runs", {}, route.signal)]);
  if (!route.isCurrent()) return null;
  const names = runs.map((run) => run.run_id).filter((name) => name !== left);
  const choose = (event) => { location.hash = `${toRun(left, "/compare").slice(1)}?with=${encodeURIComponent(event.target.value)}`; };
  const other = el("input", { type: "search", list: "others", value: right, placeholder: "Name of another run", "aria-label": "The other run", on: { change: choose } });
  const body = el("div", {});
  fill(main, headOf(data, "compare", shell), el("div", { class: "filters" }, el("span", { class: "dim" }, "Compare with"), other, el("datalist", { id: "others" }, names.map((name) => el("option", { value: name })))), body);
  if (!right) {
    fill(body, empty("Which other run?", "A fork, or the same workflow with another model or prompt. Calls with the same place in the program are set side by side."));
    return null;
  }
  fill(body, el("p", { class: "quiet" }, "Comparing…"));
  const found = await get("compare", { left, right }, route.signal);
  if (route.isCurrent()) fill(body, comparison(found));
  return null;
}

function comparison({ left, right, counts, rows }) {
  const numbers = [["equal", counts.equal, "ok"], ["different", counts.different, counts.different ? "warn" : ""], ["only here", counts.left_only, ""], ["only there", counts.right_only, ""]];
  const all = counts.different + counts.left_only + counts.right_only;
  return [
    el("div", { class: "numbers" }, numbers.map(([text, count, tone]) => el("div", {}, el("b", { class: tone }, number(count)), el("span", {}, text)))),
    rows.length ? differenceList(rows, [left, right], KINDS) : empty("They came to the same.", "Every call has an equal outcome in both runs."),
    all > rows.length ? el("p", { class: "quiet" }, `${number(rows.length)} of ${number(all)} differences are shown.`) : null,
  ];
}

// Calls that came to something else: the two runs, or a run and its validation, side by side.
export function differenceList(rows, names, kinds) {
  return el("div", { class: "differences", role: "list", "aria-label": "Differences" },
    el("div", { class: "pair names" }, names.map((name) => el("div", { class: "side cut" }, name))),
    rows.map((row) => el("article", { role: "listitem" },
      el("div", { class: "title" }, el("h3", { class: "mono anywhere" }, row.address), el("span", { class: `pill ${row.kind}` }, kinds[row.kind])),
      differences(row.left, row.right, names),
      el("div", { class: "pair" }, aboutSide(names[0], row.left), aboutSide(names[1], row.right)))));
}

function aboutSide(run, side) {
  if (side === null) return el("div", { class: "side" });
  const used = side.usage || {};
  return el("div", { class: "side about" },
    side.key ? link(toCall(run, side.key), null, "Open") : null, side.ok ? null : el("span", { class: "bad" }, "failed"),
    side.seconds === null ? null : el("span", {}, seconds(side.seconds)), tokens(used) ? el("span", {}, `${tokens(used)} tokens`) : null, el("span", {}, money(used.cost)));
}
