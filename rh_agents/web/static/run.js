// One run: what goes on now, when, what failed, and where time and money go.

import { follow, get, isExport, query } from "./api.js";
import { differenceList } from "./compare.js";
import { barOf, el, fill, link, moment, money, number, plural, rowTo, seconds, section, short, since, table, tokens } from "./dom.js";
import { headOf, requestsTable, toCall, toCalls, toRun } from "./frame.js";
import { questionCard } from "./questions.js";
import { partOf, Timeline } from "./timeline.js";

export async function showRun(main, route, shell) {
  const name = route.parts[1];
  const data = await get("run", { run: name }, route.signal);
  if (!route.isCurrent()) return null;
  const places = Object.fromEntries(["head", "now", "numbers", "time", "questions", "validation", "failures", "groups", "actors", "slowest", "requests", "origin"].map((id) => [id, el("div", { id: `part-${id}` })]));
  const timeline = new Timeline(places.time, name, {
    part: partOf(route.values),
    changed: (part) => history.replaceState(null, "", toRun(name, part ? `?${query({ from: part[0], until: part[1] })}` : "")),
  });
  const rate = new Rate();
  let drawn = "";
  const draw = (changed) => {
    Object.assign(data, changed);
    rate.note(data.totals);
    const has = (...names) => names.some((each) => each in changed);
    const state = [Boolean(data.now && data.now.paused_at), Boolean(data.totals && data.totals.failed)].join(); // what the buttons depend on
    if (has("run") || state !== drawn) fill(places.head, headOf(data, "", shell));
    drawn = state;
    if (has("run", "now", "problem", "counting")) fill(places.now, nowOf(data));
    if (has("run", "totals", "groups")) fill(places.numbers, numbersOf(data, rate));
    if (has("timeline", "lanes")) timeline.show(data.timeline, data.lanes);
    if (has("questions")) fill(places.questions, questionsOf(data, shell));
    if (has("failures", "kinds")) fill(places.failures, failuresOf(name, data));
    if (has("groups")) fill(places.groups, groupsOf(name, data.groups));
    if (has("actors")) fill(places.actors, actorsOf(name, data.actors));
    if (has("requests")) fill(places.requests, requestsOf(data.requests));
    if (has("slowest")) fill(places.slowest, slowestOf(name, data.slowest));
    if (has("run")) fill(places.origin, originOf(data.run));
  };
  fill(main, places.head, places.now, places.numbers, places.time, places.questions, places.validation, places.failures,
    el("div", { class: "columns two" }, el("div", {}, places.groups, places.slowest), el("div", {}, places.actors, places.requests, places.origin)));
  draw(data);
  if (data.run.validates) loadValidation(places.validation, name);
  const stop = follow("run/events", { run: name }, data.version, draw, (state, why) => shell.live(state, why));
  return () => { stop(); timeline.stop(); };
}

const FINDINGS = { different: "different", new: "not recorded", not_called: "not called" };

// Of a recorded validation: what differs, item by item.
async function loadValidation(place, run) {
  const found = await get("validation", { run }).catch((error) => fill(place, el("div", { class: "note bad" }, error.message)) && null);
  if (!found) return;
  fill(place, found.total
    ? section("What differs", { count: found.total }, found.is_there ? null : el("p", { class: "quiet" }, `${found.run} is not there any more.`), differenceList(found.rows, [found.run, run], FINDINGS), found.total > found.rows.length ? el("p", { class: "quiet" }, `The first ${found.rows.length} are shown.`) : null)
    : el("div", { class: "note" }, `Every call came to what is recorded in ${found.run}.`));
}

// How fast calls end now: of the last half minute that was seen, or else of the whole run.
class Rate {
  constructor() { this.seen = []; }
  note(totals) {
    if (!totals) return;
    const now = performance.now() / 1000;
    this.seen = [...this.seen.filter(([at]) => now - at < 30), [now, totals.outcomes]];
  }
  isNow() {
    return this.seen.length > 0 && this.seen[this.seen.length - 1][0] - this.seen[0][0] > 3;
  }
  of(totals) {
    const [first, last] = [this.seen[0], this.seen[this.seen.length - 1]];
    if (this.isNow()) return (last[1] - first[1]) / (last[0] - first[0]);
    const whole = totals.executed;
    return whole > 0 ? totals.outcomes / whole : 0;
  }
}

function nowOf({ run, now, problem, counting }) {
  return [
    counting ? el("div", { class: "note", role: "status" }, `Counting: ${number(counting.outcomes)} of ${number(counting.of)} calls so far; numbers below grow until then.`) : null,
    problem ? el("div", { class: "note bad", role: "alert" }, el("b", {}, "Part of this run cannot be read: "), problem) : null,
    now && !now.is_over ? presentOf(run, now) : null,
  ];
}

// What the owner said last: what is under way, what waits for what, what is due, and what is left of budgets.
function presentOf(run, now) {
  const isOn = run.status === "running";
  const waiting = (now.waiting || []).map((each) => [`${plural(each.calls, "call")} wait${each.calls === 1 ? "s" : ""} for ${each.name}${each.why ? ` (${each.why})` : ""}`, each.since]);
  const next = (now.retrying || [])[0];
  const items = [
    isOn ? null : el("b", {}, "Last known, before its process ended:"),
    now.paused_at ? el("b", {}, "paused since ", since(now.paused_at)) : null,
    el("span", {}, el("b", {}, number(now.in_flight || 0)), " in flight"),
    ...waiting.map(([text, at]) => el("span", {}, text, ", the first for ", el("b", {}, seconds(Math.max(0, now.at - at))))),
    now.retries ? el("span", {}, plural(now.retries, "retry").replace("retrys", "retries"), next ? ` due, the next in ${seconds(Math.max(0, next.due_at - now.at)) || "a moment"}` : "") : null,
    now.asking ? el("span", {}, plural(now.asking, "question"), " open") : null,
    ...(now.groups || []).slice(0, 6).map((each) => el("span", {}, each.name || each.address, " ", el("b", {}, `${number(each.in_use)}/${number(each.slots)}`), " slots")),
    ...(now.breakers || []).map((each) => el("span", { class: "bad" }, `breaker ${each.name} is ${each.state.replace("_", " ")}`)),
    ...(now.budgets || []).flatMap((each) => budgetOf(each)),
    el("span", { class: "quiet" }, "said ", since(now.at)),
  ];
  return [
    now.quiet_for ? el("div", { class: "note warn" }, `Nothing has finished for ${seconds(now.quiet_for)}`, now.where ? [": ", el("span", { class: "mono" }, now.where)] : "") : null,
    el("div", { class: `note now ${isOn ? "run" : ""}` }, items),
    runningOf(run, now),
  ];
}

function budgetOf(budget) {
  const show = (field, value) => (field === "cost" ? money(value) || "$0" : field === "seconds" ? seconds(value) : number(Math.round(value)));
  return Object.entries(budget.limits).map(([field, limit]) => {
    const [spent, reserved] = [budget.spent[field] || 0, budget.reserved[field] || 0];
    return el("span", { class: spent + reserved > 0.9 * limit ? "bad" : null }, `${budget.name || "budget"} ${field} `, el("b", {}, show(field, spent)), reserved ? ` + ${show(field, reserved)} reserved` : "", ` of ${show(field, limit)}`);
  });
}

function runningOf(run, now) {
  const long = (now.running || []).filter((call) => now.at - call.since > 5).slice(0, 5);
  if (!long.length) return null;
  const rows = long.map((call) => rowTo(call.key ? toCall(run.run_id, call.key) : toCalls(run.run_id, { status: "running" }), call.address,
    el("td", { class: "cut mono" }, call.key ? link(toCall(run.run_id, call.key), `r${call.key}`, call.address) : call.address), el("td", { class: "n dim" }, call.attempt > 1 ? `attempt ${call.attempt}` : ""), el("td", { class: "n" }, seconds(Math.max(0, now.at - call.since)))));
  return section("Running longest", { link: link(toCalls(run.run_id, { status: "running" }), "all-running", "All in flight") }, table(["Call", "", ["For", "n"]], rows, "Running longest"));
}

function numbersOf({ run, totals, groups }, rate) {
  if (!totals) return null;
  const used = totals.usage;
  const expected = (groups ? groups.groups : []).filter((group) => group.total && !group.parent).reduce((sum, group) => sum + group.total, 0);
  const isOn = run.status === "running";
  const speed = rate.of(totals);
  const left = expected - (groups ? groups.groups.filter((group) => !group.parent).reduce((sum, group) => sum + group.done + group.failed + group.cancelled, 0) : 0);
  const cards = [
    ["finished", number(totals.finished), ""],
    ["failed", number(totals.failed), totals.failed ? "bad" : ""],
    isOn || totals.running ? ["under way", number(totals.running), "run"] : null,
    totals.earlier ? ["of an earlier version", number(totals.earlier), ""] : null,
    ["retries", number(totals.retried), totals.retried ? "warn" : ""],
    [isOn && rate.isNow() ? "calls/s now" : "calls/s", speed ? (speed < 10 ? speed.toFixed(1) : short(Math.round(speed))) : "–", ""],
    isOn && left > 0 && speed > 0 ? ["about left", seconds(left / speed), ""] : [tookOf(totals), seconds(totals.executed) || "–", ""],
    ["tokens", tokens(used) || "–", ""],
    ["cost", money(used.cost) || "–", ""],
  ];
  return el("div", { class: "numbers" }, cards.filter(Boolean).map(([text, value, tone]) => el("div", {}, el("b", { class: tone }, value), el("span", {}, text))));
}

// The time in which a process executed the run, and how long it was in all, if that is another thing.
function tookOf({ executed, elapsed }) {
  return elapsed - executed > Math.max(1, 0.01 * executed) ? `took, of ${seconds(elapsed)} in all` : "took";
}

function questionsOf({ questions }, shell) {
  if (!questions || !questions.length) return null;
  return section("Waiting for an answer", { count: questions.length }, questions.slice(0, 5).map((each) => questionCard(each, shell.about)));
}

function failuresOf(run, { failures, kinds }) {
  const all = link(toCalls(run, { status: "failed" }), "all-failed", "All failed calls");
  if (kinds && kinds.length) {
    const rows = kinds.map((kind) => {
      const href = toCalls(run, { status: "failed", text: literal(kind.text) });
      return rowTo(href, kind.text, el("td", { class: "n bad" }, number(kind.count)), el("td", { class: "anywhere" }, link(href, `k${kind.text}`, kind.text || "no message")), el("td", { class: "dim hide-small" }, kind.example.actor), el("td", { class: "cut dim hide-small" }, kind.example.address));
    });
    return section("Failures by kind", { count: kinds.reduce((sum, kind) => sum + kind.count, 0), link: all }, table([["Calls", "n"], "Error", ["Actor", "hide-small"], ["The newest", "hide-small"]], rows, "Failures"));
  }
  if (!failures || !failures.length) return null;
  const rows = failures.map((failure) => {
    const href = failure.key ? toCall(run, failure.key) : toCalls(run, { status: "failed", text: failure.address });
    return rowTo(href, failure.sequence, el("td", { class: "bad anywhere" }, link(href, `f${failure.sequence}`, failure.message || "no message")), el("td", { class: "dim hide-small" }, failure.actor), el("td", { class: "cut dim hide-small" }, failure.address));
  });
  return section("Failures", { link: all }, table(["Error", ["Actor", "hide-small"], ["Call", "hide-small"]], rows, "Failures"));
}

// The longest piece of a text in which "…" stands for what differs.
const literal = (text) => text.split("…").reduce((best, piece) => (piece.trim().length > best.length ? piece.trim() : best), "");

function groupsOf(run, { groups, total }) {
  if (!groups.length) return null;
  const all = total > groups.length ? link(toRun(run, "/groups"), "all-groups", `All ${number(total)} groups`) : null;
  return section("Groups", { count: total, link: all }, groupsTable(run, groups));
}

export function groupsTable(run, groups) {
  const depth = depths(groups);
  const rows = groups.map((group) => {
    const ended = group.done + group.failed + group.cancelled;
    const href = toCalls(run, { group: group.id });
    return rowTo(href, group.id,
      el("td", { class: `cut indent-${Math.min(4, depth.get(group.id))}` }, link(href, `g${group.id}`, group.name || group.address), group.ending ? el("span", { class: "warn" }, ` ${group.ending.replaceAll("_", " ")}`) : null),
      el("td", {}, barOf(group)),
      el("td", { class: "n" }, number(ended), group.total ? el("span", { class: "quiet" }, ` / ${number(group.total)}`) : "", group.earlier ? el("div", { class: "quiet" }, `and ${number(group.earlier)} of an earlier version`) : null),
      el("td", { class: "n bad" }, group.failed || ""),
      el("td", { class: "n dim" }, group.seconds === null ? "" : seconds(group.seconds)));
  });
  return table(["Group", "", ["Finished", "n"], ["Failed", "n"], ["Time", "n"]], rows, "Groups");
}

function depths(groups) {
  const known = new Map(groups.map((group) => [group.id, group]));
  const depth = (group) => (group && group.parent && known.has(group.parent) ? 1 + depth(known.get(group.parent)) : 0);
  return new Map(groups.map((group) => [group.id, depth(group)]));
}

function actorsOf(run, actors) {
  if (!actors.length) return null;
  const hasTimes = actors.some((actor) => actor.p50 !== undefined);
  const hasWaits = actors.some((actor) => actor.waited);
  const hasMoney = actors.some((actor) => actor.usage.input_tokens || actor.usage.output_tokens || actor.usage.cost);
  const rows = actors.map((actor) => {
    const href = toCalls(run, { actor: actor.name });
    return rowTo(href, actor.name,
      el("td", { class: "cut" }, link(href, `a${actor.name}`, actor.name)),
      el("td", { class: "n" }, number(actor.done)), el("td", { class: "n bad" }, actor.failed || ""), el("td", { class: "n warn" }, actor.retried || ""),
      hasTimes ? ["p50", "p90", "p99", "seconds"].map((name) => el("td", { class: name === "seconds" ? "n" : "n hide-small" }, actor.done + actor.failed ? seconds(actor[name]) : "", name === "seconds" && hasWaits ? shareOf(actor) : null)) : null,
      hasWaits ? el("td", { class: "n waits" }, actor.waited ? [seconds(actor.waited), el("div", { class: "quiet hide-small" }, `${number(actor.waiters)}×`, ["p50", "p90", "p99"].map((name) => [" · ", el("span", { title: name, class: "nowrap" }, seconds(actor[`wait_${name}`]))]))] : "") : null,
      hasMoney ? [el("td", { class: "n hide-small" }, tokens(actor.usage)), el("td", { class: "n" }, money(actor.usage.cost))] : null);
  });
  const heads = ["Actor", ["Done", "n"], ["Failed", "n"], ["Retries", "n"]];
  if (hasTimes) heads.push(["p50", "n hide-small"], ["p90", "n hide-small"], ["p99", "n hide-small"], ["Work", "n"]);
  if (hasWaits) heads.push(["Waited", "n"]);
  if (hasMoney) heads.push(["Tokens", "n hide-small"], ["Cost", "n"]);
  return section("Where time and money go", {}, table(heads, rows, "Actors"));
}

// How much of its time an actor worked, beside what it waited.
function shareOf({ seconds: worked, waited = 0 }) {
  const share = worked / Math.max(worked + waited, 1e-9);
  const label = `${Math.round(100 * share)} % work`;
  const bar = el("div", { class: "bar", role: "img", "aria-label": label, title: label }, el("i", { class: "done" }), el("i", { class: "waited" }));
  bar.firstChild.style.width = `${100 * share}%`;
  bar.lastChild.style.width = `${100 * (1 - share)}%`;
  return bar;
}

function slowestOf(run, slowest) {
  if (!slowest || !slowest.length) return null;
  const rows = slowest.slice(0, 10).map((call) => {
    const href = toCall(run, call.key);
    return rowTo(href, call.key, el("td", { class: "cut" }, link(href, `s${call.key}`, call.address)), el("td", { class: "dim" }, call.actor), el("td", { class: "n" }, seconds(Math.max(0, call.seconds - call.waited)), call.waited ? el("div", { class: "quiet" }, `and ${seconds(call.waited)} waiting`) : null));
  });
  return section("Slowest", { link: link(toCalls(run, { order: isExport ? "seconds" : "worked", descending: 1 }), "all-slow", "All by time") }, table(["Call", "Actor", ["Work", "n"]], rows, "Slowest calls"));
}

// What people asked of the run, and what came of it.
function requestsOf(requests) {
  return requests.length ? section("Asked for", {}, requestsTable(requests)) : null;
}

function originOf(run) {
  const facts = [["Started", moment(run.created_at)], ["Ended", run.ended_at ? moment(run.ended_at) : null], ["Command", run.command && el("code", {}, run.command)], ["Folder", run.folder && el("code", {}, run.folder)], ["Input", run.input && el("code", {}, run.input, run.input_is_cut ? "…" : "")], ["Owner", run.owner]];
  return section("About this run", {}, el("dl", { class: "facts" }, facts.filter(([, value]) => value).map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])));
}

