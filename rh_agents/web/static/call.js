// One call: what it was given and gave, every attempt, and what is around it.

import { followText, get, isExport } from "./api.js";
import { callActions, forkButton } from "./actions.js";
import { clock, copy, el, fill, link, moment, money, number, pill, rowTo, seconds, section, since, table, tokens } from "./dom.js";
import { headOf, toCall, toCalls } from "./frame.js";
import { loadValue, parsed, valueView } from "./values.js";

export async function showCall(main, route, shell) {
  const [, run, , key] = route.parts;
  const [data, found] = await Promise.all([get("run", { run }, route.signal), get("call", { run, key }, route.signal)]);
  if (!route.isCurrent()) return null;
  const { call } = found;
  headOf(data, "call", shell);
  shell.crumbs([run, `#/run/${encodeURIComponent(run)}`], ["Calls", toCalls(run)], [call.address.split("::").pop()]);
  const value = el("div", {});
  const input = el("div", {});
  const children = el("div", {});
  const leftOut = shell.about.no_content ? "It was left out of this file." : "";
  fill(main,
    el("div", { class: "head" }, el("div", { class: "grow" },
      el("div", { class: "title" }, el("h1", { class: "mono" }, call.address), pill(call.status), call.from_cache ? el("span", { class: "tag" }, "from the cache") : null),
      el("div", { class: "about" }, el("span", {}, call.actor), el("span", {}, call.kind.replaceAll("_", " ")), el("span", {}, seconds(call.seconds)))),
      isExport ? null : el("div", { class: "tools" }, shell.about.read_only ? null : [callActions(data.run, call), forkButton(data.run, call)], el("button", { type: "button", on: { click: () => copy(`@${key}`) } }, "Copy key"))),
    waitsFor(data, call),
    call.message ? el("div", { class: `note ${call.status === "failed" ? "bad" : "warn"}` }, call.message) : null,
    el("div", { class: "columns two" },
      el("div", {}, section("Input", {}, input), section("Output", {}, value)),
      el("div", {}, factsOf(run, found), attemptsOf(found), children)));
  fill(input, call.input === null ? el("p", { class: "quiet" }, leftOut || "Not recorded.") : valueView({ text: call.input, is_cut: parsed(call.input) === null, size: call.input.length }));
  if (found.has_value) loadValue(value, run, key);
  else fill(value, el("p", { class: "quiet" }, call.ended_at ? leftOut || "None is recorded." : "It has not ended."));
  loadChildren(children, run, key);
  if (call.ended_at || data.run.status !== "running") return null;
  return streamInto(value, run, key, async () => {
    const { call: now } = await get("call", { run, key }, route.signal).catch(() => found);
    if (now.ended_at && route.isCurrent()) showCall(main, route, shell);
  });
}

// What a call under way waits for, as far as the owner of the run names it.
function waitsFor({ run, now }, call) {
  if (call.ended_at || run.status !== "running" || !now) return null;
  const held = (now.held || []).find((each) => each.key === call.key);
  const due = (now.retrying || []).find((each) => each.key === call.key);
  if (held) return el("div", { class: "note warn" }, `Waits for ${held.name} since `, since(held.since), ".");
  return due ? el("div", { class: "note warn" }, `Waits for its next attempt, due at ${clock(due.due_at)}.`) : null;
}

// What a call writes before it has ended. Each attempt begins anew; so does an answer that came to nothing.
function streamInto(place, run, key, done) {
  const text = el("div", { class: "stream", "aria-live": "off", tabindex: "0", "aria-label": "Text as it streams" });
  let attempt = 0;
  let part = null;
  let name = "";
  const begin = (note) => {
    fill(text, note ? el("p", { class: "quiet" }, note) : null);
    part = null;
  };
  const add = (piece) => {
    if (piece.attempt !== attempt && attempt) begin(`Attempt ${number(piece.attempt)}`);
    attempt = piece.attempt;
    if (piece.kind === "void") return begin("It begins anew.");
    if (piece.is_gap) {
      text.append(el("p", { class: "quiet" }, "… text is missing here …"));
      part = null;
    }
    const its = `${piece.kind} ${piece.tool_index}`;
    if (part === null || its !== name || piece.tool_name) {
      name = its;
      part = el("pre", { class: piece.kind === "reasoning" ? "quiet" : "" });
      text.append(piece.kind === "tool_call" ? el("p", { class: "quiet" }, "calls ", el("code", {}, piece.tool_name || "a tool")) : "", part);
    }
    part.append(piece.text);
  };
  return followText(run, key, (pieces) => {
    if (!text.isConnected) fill(place, text);
    const isAtEnd = text.scrollTop + text.clientHeight >= text.scrollHeight - 8;
    pieces.forEach(add);
    if (isAtEnd) text.scrollTop = text.scrollHeight;
  }, done);
}

function factsOf(run, { call, why, parents }) {
  const used = call.usage || {};
  const facts = [
    ["Why it ran", why],
    ["Began", call.began_at ? moment(call.began_at) : null],
    ["Ended", call.ended_at ? moment(call.ended_at) : null],
    ["Took", seconds(call.seconds)],
    ["Waited for limits", call.waited ? seconds(call.waited) : null],
    ["Attempts", call.attempts > 1 ? number(call.attempts) : null],
    ["Tokens", used.input_tokens || used.output_tokens ? `${number(used.input_tokens || 0)} in, ${number(used.output_tokens || 0)} out${used.cached_tokens ? `, ${number(used.cached_tokens)} cached` : ""}` : null],
    ["Cost", money(used.cost)],
    ["Version", call.version],
    ["In", parents && parents.length ? parents.map((parent) => el("div", { class: "anywhere" }, link(toCall(run, parent.key), null, parent.address))) : null],
    ["Group", call.group_id ? link(toCalls(run, { group: call.group_id }), null, `member ${number(call.index)}`) : null],
    ["Key", el("code", { class: "anywhere" }, call.key)],
  ];
  return section("About this call", {}, el("dl", { class: "facts" }, facts.filter(([, value]) => value).map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])));
}

function attemptsOf({ attempts, tries }) {
  const hasMoney = attempts.some((each) => tokens(each.usage) || money(each.usage.cost));
  const rows = attempts.map((each) => el("tr", {},
    el("td", { class: "n" }, number(each.number)), el("td", {}, pill(each.status)),
    el("td", { class: "anywhere message" }, each.message || "", each.delay ? el("span", { class: "quiet" }, ` next in ${seconds(each.delay)}`) : null),
    el("td", { class: "n dim" }, each.ended_at ? clock(each.ended_at) : ""), hasMoney ? [el("td", { class: "n" }, tokens(each.usage)), el("td", { class: "n" }, money(each.usage.cost))] : null));
  const earlier = tries.map((each) => el("tr", {}, el("td", {}, pill(each.status)), el("td", { class: "n" }, seconds(each.seconds)), el("td", { class: "n" }, money(each.cost))));
  return [
    rows.length ? section("Attempts", {}, table([["#", "n"], "", "", ["Ended", "n"], ...(hasMoney ? [["Tokens", "n"], ["Cost", "n"]] : [])], rows, "Attempts")) : null,
    earlier.length ? section("Outcomes that this one replaces", {}, table(["", ["Time", "n"], ["Cost", "n"]], earlier, "Earlier outcomes")) : null,
  ];
}

async function loadChildren(place, run, key) {
  const found = await get("call/children", { run, key }).catch(() => ({ calls: [] }));
  if (!found.calls.length) return;
  const rows = found.calls.map((child) => rowTo(toCall(run, child.key), child.key, el("td", {}, pill(child.status)), el("td", { class: "cut mono" }, link(toCall(run, child.key), child.key, child.address)), el("td", { class: "n" }, seconds(child.seconds))));
  fill(place, section("Calls that it made", { count: found.calls.length }, table(["", "Call", ["Time", "n"]], rows, "Children")));
}
