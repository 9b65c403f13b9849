// Two runs, item by item.

import { get } from "./api.js";
import { el, empty, fill, link, money, number, pill, seconds, table, tokens } from "./dom.js";
import { headOf, toCall, toRun } from "./frame.js";

const KINDS = { different: "different", left_only: "only here", right_only: "only there" };

export async function showCompare(main, route, shell) {
  const left = route.parts[1];
  const right = route.values.get("with") || "";
  const [data, { runs }] = await Promise.all([get("run", { run: left }, route.signal), get("runs", {}, route.signal)]);
  if (!route.isCurrent()) return null;
  const names = runs.map((run) => run.run_id).filter((name) => name !== left);
  const choose = el("select", { "aria-label": "The other run", on: { change: (event) => { location.hash = `${toRun(left, "/compare").slice(1)}?with=${encodeURIComponent(event.target.value)}`; } } },
    el("option", { value: "" }, "Choose another run"), names.map((name) => el("option", { value: name, selected: name === right }, name)));
  const body = el("div", {});
  fill(main, headOf(data.run, "compare", shell), el("div", { class: "filters" }, el("span", { class: "dim" }, "Compare with"), choose), body);
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
    rows.length ? table(["Call", "", left, right], rows.map((row) => el("tr", {}, el("td", { class: "mono anywhere" }, row.address), el("td", {}, el("span", { class: `pill ${row.kind}` }, KINDS[row.kind])), sideOf(left, row.left), sideOf(right, row.right))), "Differences") : empty("They came to the same.", "Every call has an equal outcome in both runs."),
    all > rows.length ? el("p", { class: "quiet" }, `${number(rows.length)} of ${number(all)} differences are shown.`) : null,
  ];
}

function sideOf(run, side) {
  if (side === null) return el("td", { class: "quiet" }, "–");
  const used = side.usage || {};
  return el("td", {}, el("div", { class: "mono anywhere" }, link(toCall(run, side.key), null, side.value)), el("div", { class: "about" }, side.ok ? null : pill("failed"), el("span", {}, seconds(side.seconds)), el("span", {}, tokens(used) && `${tokens(used)} tokens`), el("span", {}, money(used.cost))));
}
