// All groups of a run, a hundred at a time, in the order in which they began.

import { get, query } from "./api.js";
import { el, empty, fill, link, number, plural } from "./dom.js";
import { headOf, toRun } from "./frame.js";
import { groupsTable } from "./run.js";

export async function showGroups(main, route, shell) {
  const run = route.parts[1];
  const wanted = { from: Number(route.values.get("from")) || 0, text: route.values.get("text") || "" };
  const data = await get("run", { run }, route.signal);
  if (!route.isCurrent()) return null;
  const list = el("div", {});
  const count = el("span", { class: "quiet" });
  const pages = el("nav", { class: "pages", "aria-label": "Further groups" });
  const load = async () => {
    const found = await get("groups", { run, from: wanted.from, text: wanted.text }, route.signal);
    if (!route.isCurrent()) return;
    fill(list, found.groups.length ? groupsTable(run, found.groups) : empty("No group fits.", "Other words may."));
    fill(count, plural(found.total, "group"), found.groups.length < found.total ? `, ${number(found.first + 1)} to ${number(found.first + found.groups.length)} are shown` : "");
    const step = found.size;
    fill(pages, wanted.from > 0 ? link(toGroups(run, { ...wanted, from: Math.max(0, wanted.from - step) }), "earlier", "Earlier") : null,
      wanted.from + step < found.total ? link(toGroups(run, { ...wanted, from: wanted.from + step }), "later", "Later") : null);
  };
  const search = el("input", { type: "search", placeholder: "Name or address", "aria-label": "Name or address", value: wanted.text, on: { input: (event) => {
    Object.assign(wanted, { text: event.target.value, from: 0 });
    history.replaceState(null, "", toGroups(run, wanted));
    load();
  } } });
  await load();
  if (route.isCurrent()) fill(main, headOf(data, "groups", shell), el("div", { class: "filters" }, search, el("span", { class: "grow" }), count), list, pages);
  return null;
}

export function toGroups(run, { from = 0, text = "" } = {}) {
  const given = query({ from: from || "", text });
  return toRun(run, `/groups${given && "?"}${given}`);
}
