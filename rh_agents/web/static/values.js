// Values as people read them: a conversation, a tree, an image, text. All of it text nodes.

import { get, isExport, query } from "./api.js";
import { copy, el, fill, number } from "./dom.js";

const IMAGES = ["image/png", "image/jpeg", "image/gif", "image/webp"];
const MOST = 200;

// A recorded value: `text` is typed JSON, see rh_agents/core/values.
export function valueView({ text, is_cut: isCut, size }, { run, key, what = "value" } = {}) {
  const body = el("div", {});
  const whole = parsed(text);
  const views = [];
  if (!isCut && conversationIn(whole)) views.push(["Conversation", () => conversation(conversationIn(whole))]);
  if (!isCut && typeof whole === "string") views.push(["Text", () => el("pre", {}, whole)]);
  if (!isCut && whole !== null && typeof whole === "object") views.push(["Tree", () => el("div", { class: "tree" }, tree(whole, 0))]);
  views.push(["Raw", () => el("pre", {}, pretty(text, isCut))]);
  const buttons = views.map(([name, draw]) => el("button", { class: "plain", type: "button", on: { click: () => choose(name, draw) } }, name));
  const choose = (name, draw) => {
    buttons.forEach((button) => button.setAttribute("aria-pressed", button.textContent === name));
    fill(body, draw());
  };
  choose(...views[0]);
  const images = isCut ? [] : imagesIn(whole);
  const more = isCut ? el("span", { class: "quiet" }, `${number(size)} characters, the beginning is shown`) : null;
  const file = key && !isExport ? el("a", { class: "button plain", href: `./api/call/value?${query({ run, key, what, as: "file" })}`, download: "" }, "Download") : null;
  return el("div", { class: "value" },
    el("div", { class: "tools" }, views.length > 1 ? buttons : null, more, el("span", { class: "grow" }), file, el("button", { class: "plain", type: "button", on: { click: () => copy(text) } }, "Copy")),
    images, body);
}

export function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function pretty(text, isCut) {
  const whole = isCut ? null : parsed(text);
  return whole === null ? text : JSON.stringify(whole, null, 2);
}

// -- trees -------------------------------------------------------------------------------------------------------------

function tree(value, depth, name = null) {
  const label = name === null ? null : el("span", { class: "k" }, `${name}: `);
  const [kind, inner] = unwrapped(value);
  const mark = kind ? el("span", { class: "kind" }, `${kind} `) : null;
  if (inner === null || typeof inner !== "object") return el("div", { class: "leaf" }, label, mark, leaf(inner));
  const entries = Array.isArray(inner) ? inner.map((each, i) => [i, each]) : Object.entries(inner);
  const size = Array.isArray(inner) ? `[${entries.length}]` : `{${entries.length}}`;
  if (!entries.length) return el("div", { class: "leaf" }, label, mark, el("span", { class: "null" }, size));
  const details = el("details", { open: depth < 2 && entries.length <= 50 }, el("summary", {}, label, mark, el("span", { class: "null" }, size)));
  let drawn = 0;
  const draw = () => {
    details.querySelector(":scope > button")?.remove();
    details.append(...entries.slice(drawn, drawn + MOST).map(([key, each]) => tree(each, depth + 1, key)));
    drawn += MOST;
    if (drawn < entries.length) details.append(el("button", { class: "plain", type: "button", on: { click: draw } }, `${number(entries.length - drawn)} more`));
  };
  if (details.open) draw();
  else details.addEventListener("toggle", draw, { once: true });
  return details;
}

function leaf(value) {
  if (typeof value === "string") return el("span", { class: "s" }, value.length > 2000 ? `${value.slice(0, 2000)}…` : value);
  if (value === null) return el("span", { class: "null" }, "null");
  return el("span", { class: "num" }, String(value));
}

// {"!": "model", "class": "app.Page", "v": {...}} is a Page with what is in `v`.
function unwrapped(value) {
  if (value === null || typeof value !== "object" || Array.isArray(value) || !("!" in value)) return [null, value];
  const kind = typeof value.class === "string" ? value.class.split(".").pop() : String(value["!"]);
  const { "!": _, class: __, v, ...rest } = value;
  return [kind, v === undefined ? rest : v];
}

export function plain(value) {
  const [, inner] = unwrapped(value);
  if (Array.isArray(inner)) return inner.map(plain);
  if (inner === null || typeof inner !== "object") return inner;
  return Object.fromEntries(Object.entries(inner).map(([name, each]) => [name, plain(each)]));
}

// -- conversations -----------------------------------------------------------------------------------------------------

// The messages in a request to a model, in what it answered, or in a list of messages; null if there are none.
function conversationIn(value) {
  const found = plain(value);
  if (found === null || typeof found !== "object") return null;
  const list = Array.isArray(found) ? found : found.messages;
  const messages = Array.isArray(list) ? list.map(asMessage) : null;
  if (Array.isArray(messages) && messages.length && messages.every((each) => each && typeof each === "object" && typeof each.role === "string")) return messages;
  if (typeof found.finish_reason === "string" && "text" in found) return [{ role: "assistant", content: found.text || found.refusal || "", tool_calls: found.tool_calls }];
  return null;
}

// A message of LangChain has its kind where others have a role.
const ROLES = { ai: "assistant", human: "user", system: "system", tool: "tool" };

function asMessage(each) {
  if (each === null || typeof each !== "object" || !(each.type in ROLES) || !each.data) return each;
  return { role: ROLES[each.type], content: each.data.content, tool_calls: (each.data.tool_calls || []).map((call) => ({ name: call.name, arguments: call.args })) };
}

function conversation(messages) {
  return el("div", {}, messages.map((message) => el("div", { class: `said ${["user", "assistant", "tool", "system"].includes(message.role) ? message.role : ""}` },
    el("b", {}, message.role),
    el("div", {}, spoken(message.content), (message.tool_calls || []).map((call) => el("div", { class: "tool-call" }, `${call.name}(${argumentsOf(call)})`))))));
}

function spoken(content) {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return content === null || content === undefined ? "" : JSON.stringify(content);
  return content.map((part) => (part && part.type === "text" ? part.text : part && part.type === "image" ? picture(part.url) || `[image ${part.url}]` : JSON.stringify(part)));
}

const argumentsOf = (call) => (typeof call.arguments === "string" ? call.arguments : JSON.stringify(call.arguments ?? {}, null, 1));

// -- images ------------------------------------------------------------------------------------------------------------

function imagesIn(value, found = []) {
  if (found.length >= 4 || value === null || value === undefined) return found;
  if (typeof value === "string") {
    const image = value.startsWith("data:image/") ? picture(value) : null;
    if (image) found.push(image);
  } else if (typeof value === "object") {
    const bytes = value["!"] === "bytes" && typeof value.v === "string" ? pictureOf(value.v) : null;
    if (bytes) found.push(bytes);
    else for (const each of Object.values(value)) imagesIn(each, found);
  }
  return found;
}

function picture(url) {
  const kind = IMAGES.find((each) => url.startsWith(`data:${each};base64,`));
  return kind ? el("img", { class: "shown", src: url, alt: "An image in this value" }) : null;
}

function pictureOf(base64) {
  const kind = [["iVBORw0KGgo", IMAGES[0]], ["/9j/", IMAGES[1]], ["R0lGOD", IMAGES[2]], ["UklGR", IMAGES[3]]].find(([head]) => base64.startsWith(head));
  return kind ? picture(`data:${kind[1]};base64,${base64}`) : null;
}

// -- on demand ---------------------------------------------------------------------------------------------------------

export async function loadValue(place, run, key, what = "value") {
  fill(place, el("p", { class: "quiet" }, "Loading…"));
  try {
    fill(place, valueView(await get("call/value", { run, key, what }), { run, key, what }));
  } catch (error) {
    fill(place, el("p", { class: "quiet" }, error.message));
  }
}
