// What differs between two values, piece by piece: shown as people read values, with what is the same left out.

import { el, number } from "./dom.js";
import { parsed, plain } from "./values.js";

const MOST_CHANGES = 30;
const KEPT_AROUND = 40;
const LONGEST_CHANGE = 400;

// Two sides of a call: `{ text, is_cut, message }` each, or null. Text is typed JSON, see rh_agents/core/values.
export function differences(left, right, names) {
  const [mine, theirs] = [valueOf(left), valueOf(right)];
  if (mine === undefined || theirs === undefined) {
    return pairOf(names, left === null ? null : shownText(left), right === null ? null : shownText(right));
  }
  const found = [];
  collect(mine, theirs, "", found);
  if (!found.length) return [el("p", { class: "quiet" }, "They read the same; their types differ."), pairOf(names, left.text, right.text)];
  return [
    found.slice(0, MOST_CHANGES).map(([path, a, b]) => el("div", { class: "change" }, path ? el("div", { class: "k mono" }, path) : null, pairOf(names, textOf(a), textOf(b)))),
    found.length > MOST_CHANGES ? el("p", { class: "quiet" }, `${number(found.length - MOST_CHANGES)} more parts differ.`) : null,
  ];
}

// The value of a side, if all of it is known and it is no failure; else undefined.
function valueOf(side) {
  if (side === null || side.is_cut || side.message !== null) return undefined;
  const value = parsed(side.text);
  return value === null && side.text.trim() !== "null" ? undefined : plain(value);
}

function shownText(side) {
  if (side.message !== null) return side.message;
  const value = side.is_cut ? undefined : valueOf(side);
  return value === undefined ? `${side.text}${side.is_cut ? "…" : ""}` : textOf(value);
}

const isTree = (value) => value !== null && typeof value === "object";

function collect(a, b, path, found) {
  if (isTree(a) && isTree(b) && Array.isArray(a) === Array.isArray(b)) {
    for (const name of new Set([...Object.keys(a), ...Object.keys(b)])) collect(a[name], b[name], stepInto(path, name, Array.isArray(a)), found);
  } else if (a !== b) found.push([path, a, b]);
}

const stepInto = (path, name, isList) => (isList ? `${path}[${name}]` : path ? `${path}.${name}` : name);

function textOf(value) {
  if (value === undefined) return null;
  return typeof value === "string" ? value : JSON.stringify(value, null, isTree(value) ? 1 : 0);
}

// Two texts side by side, with what is not the same marked. null stands for: there is none.
function pairOf(names, a, b) {
  return el("div", { class: "pair" }, [[a, b], [b, a]].map(([mine, other], i) => el("div", { class: "side" },
    el("span", { class: "visually-hidden" }, `${names[i]}: `), mine === null ? el("span", { class: "quiet" }, "–") : marked(mine, other))));
}

function marked(mine, other) {
  if (other === null) return shortened(mine);
  const most = Math.min(mine.length, other.length);
  let start = 0;
  while (start < most && mine[start] === other[start]) start++;
  let end = 0;
  while (end < most - start && mine[mine.length - 1 - end] === other[other.length - 1 - end]) end++;
  const [before, middle, after] = [mine.slice(0, start), mine.slice(start, mine.length - end), mine.slice(mine.length - end)];
  return [
    before.length > 2 * KEPT_AROUND ? `…${before.slice(-KEPT_AROUND)}` : before,
    middle ? el("mark", {}, shortened(middle)) : null,
    after.length > 2 * KEPT_AROUND ? `${after.slice(0, KEPT_AROUND)}…` : after,
  ];
}

const shortened = (value) => (value.length > LONGEST_CHANGE ? `${value.slice(0, LONGEST_CHANGE)}…` : value);
