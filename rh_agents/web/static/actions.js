// What can be asked for: each with a preview, a reason, and the command that does the same.

import { post, query } from "./api.js";
import { command, el, fill, notice } from "./dom.js";
import { parsed } from "./values.js";

const ENDED = ["completed", "failed", "cancelled"];

export function actionsOf(run, about, now = null, totals = null) {
  if (about.read_only) return [el("span", { class: "quiet" }, "for reading only"), exportLink(run)];
  const buttons = [];
  const steer = (verb, title, sure) => button(`${sure}…`, () => ask({ title: `${title} ${run.run_id}`, body: { run: run.run_id, verb }, sure }));
  if (!ENDED.includes(run.status)) buttons.push(now && now.paused_at ? steer("unpause", "Let it go on:", "Unpause") : steer("pause", "Begin nothing new in", "Pause"));
  if (!ENDED.includes(run.status)) buttons.push(button("Set…", () => askSet(run, now)));
  if (!ENDED.includes(run.status) || (totals && totals.failed)) buttons.push(button("Requeue…", () => askRequeue(run, "the failed calls", { failed: true })));
  if (!ENDED.includes(run.status)) buttons.push(button("Stop…", () => ask({ title: `Stop ${run.run_id} for good`, body: { run: run.run_id, verb: "stop" }, sure: "Stop the run", danger: true })));
  if (about.allow_resume && run.status !== "running" && run.command) buttons.unshift(button("Resume…", () => ask({ title: `Start ${run.run_id} again`, body: { run: run.run_id, verb: "resume" }, sure: "Start", hasReason: false, confirms: true })));
  buttons.push(button("Fork…", () => askFork(run, null)), exportLink(run));
  return buttons;
}

const exportLink = (run) => el("a", { class: "button", href: `./api/export?${query({ run: run.run_id })}`, download: `${run.run_id}.html`, title: "This run as one file" }, "Export");
const button = (text, click) => el("button", { type: "button", "data-key": `do-${text}`, on: { click } }, text);

// To be made again: at the next start, where no process executes the run any more.
function askRequeue(run, what, which) {
  const isOver = run.status !== "running";
  ask({ title: `Make ${what} of ${run.run_id} again${isOver ? " at its next start" : ""}`, body: { run: run.run_id, verb: "requeue", ...which }, sure: isOver ? "Requeue for the next start" : "Requeue" });
}

// What can be asked for about one call.
export function callActions(run, call) {
  const items = [`@${call.key}`];
  if (call.status === "failed" || call.status === "cancelled") return button("Requeue…", () => askRequeue(run, call.address, { items }));
  if (ENDED.includes(run.status)) return null;
  return call.ended_at ? null : button("Cancel…", () => ask({ title: `Cancel ${call.address}`, body: { run: run.run_id, verb: "cancel", items }, sure: "Cancel the call", danger: true }));
}

export const forkButton = (run, call) => (call.ended_at ? button("Fork here…", () => askFork(run, call)) : null);

// Another number for something that the run has: its groups, limits and budgets are those that its owner has named.
function askSet(run, now) {
  const names = ["max-workers", ...((now && now.settings) || []).map((each) => each.name), "retry"];
  const list = el("datalist", { id: "settings" }, [...new Set(names)].map((name) => el("option", { value: name })));
  const name = el("input", { type: "text", list: "settings", value: "max-workers", required: true, "aria-label": "What" });
  const value = el("input", { type: "number", step: "any", min: 0, required: true, "aria-label": "Its new value" });
  const body = () => {
    if (value.value === "") throw new Error("Enter a number.");
    return { run: run.run_id, verb: "set", settings: { [name.value]: value.valueAsNumber } };
  };
  ask({ title: `Change numbers of ${run.run_id}`, body, sure: "Set", fields: [el("div", { class: "field" }, el("label", {}, "What"), name, list), el("div", { class: "field" }, el("label", {}, "New value"), value)] });
}

function askFork(run, call) {
  const name = el("input", { type: "text", value: `${run.run_id}-2`, required: true });
  const result = el("textarea", { rows: 3, placeholder: "Leave empty to make the call again; or JSON that it is to have returned" });
  const body = () => {
    const given = { run: run.run_id, verb: "fork", new: name.value };
    if (call !== null) given.address = `@${call.key}`;
    if (call !== null && result.value.trim()) {
      const value = parsed(result.value);
      if (value === null && result.value.trim() !== "null") throw new Error('The result is not JSON; a text is written "in quotes".');
      given.result = value;
    }
    return given;
  };
  ask({ title: call === null ? `Copy ${run.run_id}` : `Copy ${run.run_id} from ${call.address}`, body, sure: "Fork", hasReason: false,
    fields: [el("div", { class: "field" }, el("label", {}, "Name of the copy", name)), call === null ? null : el("div", { class: "field" }, el("label", {}, "Its result", result))],
    then: () => { location.hash = `/run/${encodeURIComponent(name.value)}`; } });
}

// A dialog that shows what would happen before it does.
export function ask({ title, body, sure, danger = false, hasReason = true, fields = [], confirms = false, then = () => {} }) {
  const reason = el("input", { type: "text", placeholder: "For the record" });
  const preview = el("div", { class: "note" }, "…");
  const line = el("div", {});
  const problem = el("div", { class: "bad", role: "alert" });
  const go = el("button", { class: danger ? "danger" : "primary", type: "submit", disabled: true }, sure);
  let shown = {};
  const wanted = (isPreview) => ({ ...(typeof body === "function" ? body() : body), reason: reason.value, dry_run: isPreview, ...(confirms && !isPreview ? shown : {}) });
  const form = el("form", { on: { submit: (event) => { event.preventDefault(); act(); } } },
    el("h2", {}, title), fields, hasReason ? el("div", { class: "field" }, el("label", {}, "Reason", reason)) : null, preview, line, problem,
    el("div", { class: "tools" }, el("button", { type: "button", on: { click: () => dialog.close() } }, "Back"), go));
  const dialog = el("dialog", { "aria-label": title }, form);
  let waiting = 0;
  form.addEventListener("input", () => { go.disabled = true; clearTimeout(waiting); waiting = setTimeout(look, 200); });
  dialog.addEventListener("close", () => dialog.remove());
  async function look() {
    fill(problem);
    try {
      const found = await post("act", wanted(true));
      fill(preview, found.preview);
      shown = { command: found.command, preview: found.preview };
      fill(line, found.command ? command(found.command) : null);
      go.disabled = false;
    } catch (error) {
      fill(preview, "Nothing would be done.");
      fill(problem, error.message);
    }
  }
  async function act() {
    go.disabled = true;
    try {
      const found = await post("act", wanted(false));
      notice(found.done);
      dialog.close();
      then();
    } catch (error) {
      fill(problem, error.message);
    }
  }
  document.body.append(dialog);
  dialog.showModal();
  look();
}
