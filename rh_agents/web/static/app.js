// The frame around all views: the bar, the address, the keyboard.

import { get, isExport, Refused } from "./api.js";
import { el, empty, fill, link, svg } from "./dom.js";
import { showCall } from "./call.js";
import { showCalls } from "./calls.js";
import { showCompare } from "./compare.js";
import { showGroups } from "./groups.js";
import { showPlan } from "./plan.js";
import { showQuestions, showRunQuestions } from "./questions.js";
import { showRun } from "./run.js";
import { showRuns } from "./runs.js";

const VIEWS = { "": showRun, calls: showCalls, call: showCall, plan: showPlan, groups: showGroups, compare: showCompare, questions: showRunQuestions };
const THEMES = ["auto", "light", "dark"];

const startNode = document.getElementById("start");
const start = startNode === null ? "#/" : JSON.parse(startNode.textContent); // an exported file has one run
const main = document.getElementById("main");
const crumbs = el("div", { class: "crumbs" });
const live = el("span", { class: "live hide-small", hidden: true });
const asked = el("a", { href: "#/questions", class: "button plain", hidden: true });

const shell = {
  about: {},
  crumbs(...parts) {
    const names = parts.map(([text, href]) => (href ? link(href, null, text) : el("span", {}, text)));
    for (const name of names) name.className = "cut";
    const home = el("a", { href: start, class: "home", title: "All runs" }, mark(), el("span", { class: parts.length ? "hide-small" : "" }, isExport ? "Overview" : "Runs"));
    fill(crumbs, home, names.flatMap((name) => [el("span", { class: "sep" }, "/"), name]));
    document.title = [...parts.map(([text]) => text).reverse(), "rh_agents"].join(" · ");
  },
  live(state, why) {
    live.hidden = !state || isExport;
    live.dataset.state = state || "";
    fill(live, { live: "live", lost: "reconnecting…", ended: why || "ended" }[state] || "");
  },
  questions(count) {
    asked.hidden = !count;
    fill(asked, "Questions ", el("span", { class: "badge" }, count));
  },
};

function mark() {
  const lines = svg("path", { d: "M4 4.500h5M4 8h8M4 11.500h6", stroke: "#fff", "stroke-width": "1.600", "stroke-linecap": "round" });
  return svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, svg("rect", { width: 16, height: 16, rx: 4, fill: "#4b5bd6" }), lines);
}

// -- the address -------------------------------------------------------------------------------------------------------

function parse() {
  const [path, given] = (location.hash || start).replace(/^#/, "").split("?");
  return { parts: path.split("/").filter(Boolean).map(decoded), values: new URLSearchParams(given || "") };
}

// An address that somebody typed may be no encoding of anything.
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

let leave = () => {};
let turn = 0;

async function go() {
  const mine = ++turn;
  leave();
  leave = () => {};
  const { parts, values } = parse();
  shell.live("");
  const controller = new AbortController();
  leave = () => controller.abort();
  const view = viewOf(parts);
  // Each view has a place of its own: one that was left while it loaded draws where no one sees it.
  const place = el("div", {}, el("p", { class: "quiet", "aria-busy": "true" }, "Loading…"));
  fill(main, place);
  try {
    const stop = await view(place, { parts, values, signal: controller.signal, isCurrent: () => mine === turn }, shell);
    if (mine === turn) leave = () => { controller.abort(); if (stop) stop(); };
    else if (stop) stop();
  } catch (error) {
    if (mine !== turn || error.name === "AbortError") return;
    if (!(error instanceof Refused)) console.error(error);
    shell.crumbs();
    fill(place, empty("This cannot be shown.", error.message), el("p", { class: "tools" }, el("a", { class: "button", href: start }, "Back")));
  }
}

function viewOf(parts) {
  if (parts[0] === "run" && parts[1]) return Object.hasOwn(VIEWS, parts[2] || "") ? VIEWS[parts[2] || ""] : showRun;
  return parts[0] === "questions" ? showQuestions : showRuns;
}

// -- keyboard and theme ------------------------------------------------------------------------------------------------

function keyed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const isTyping = event.target.closest("input, textarea, select");
  if (isTyping) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const doing = { "/": focusSearch, "?": help, t: nextTheme, j: () => step(1), k: () => step(-1), r: () => (location.hash = start), u: up }[event.key];
  if (doing && doing() !== false) event.preventDefault();
}

function focusSearch() {
  const found = main.querySelector('input[type="search"]');
  if (found === null) return false;
  found.focus();
  found.select();
  return true;
}

function step(by) {
  const rows = [...main.querySelectorAll("tr.go a[data-key], a.grid-row")].filter((each) => each.getClientRects().length);
  const at = rows.indexOf(document.activeElement);
  const next = rows[at < 0 ? (by > 0 ? 0 : rows.length - 1) : at + by];
  if (!next) return false;
  next.focus();
  return true;
}

function up() {
  const links = [...crumbs.querySelectorAll("a")];
  if (links.length) location.hash = links[links.length - 1].getAttribute("href").slice(1);
}

function help() {
  const keys = [["j k", "next, previous row"], ["Enter", "open"], ["u", "one level up"], ["/", "search"], ["r", "all runs"], ["t", "theme"], ["?", "this"]];
  const dialog = el("dialog", { "aria-label": "Keyboard" }, el("form", { method: "dialog" }, el("h2", {}, "Keyboard"),
    el("div", { class: "help" }, keys.map(([key, text]) => [el("kbd", {}, key), el("span", {}, text)])),
    el("div", { class: "tools" }, el("button", {}, "Close"))));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

function theme() {
  try {
    return localStorage.getItem("theme") || "auto";
  } catch {
    return "auto"; // a file, or storage that is switched off
  }
}

function setTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  try {
    localStorage.setItem("theme", name);
  } catch {
    // it counts until the page is left
  }
  fill(themeButton, { auto: "Auto", light: "Light", dark: "Dark" }[name]);
  document.dispatchEvent(new Event("theme"));
}

const nextTheme = () => setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme || "auto") + 1) % 3]);
const themeButton = el("button", { class: "plain", type: "button", title: "Light, dark, or as the system has it (t)", on: { click: nextTheme } });

// -- begin -------------------------------------------------------------------------------------------------------------

function begin() {
  const helpButton = el("button", { class: "plain hide-small", type: "button", title: "Keyboard (?)", "aria-label": "Keyboard", on: { click: help } }, "?");
  fill(document.getElementById("bar"), crumbs, live, el("nav", {}, asked, themeButton, helpButton));
  setTheme(theme());
  addEventListener("hashchange", go);
  addEventListener("keydown", keyed);
  get("about").then((about) => { shell.about = about; }, () => {}).finally(go);
}

begin();
