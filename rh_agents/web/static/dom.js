// Nodes and words. Everything that comes from a run becomes a text node or an attribute, never markup.

export function el(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, run] of Object.entries(value)) node.addEventListener(event, run);
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  add(node, children);
  return node;
}

function add(node, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) add(node, child);
    else node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

export function svg(tag, props, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(props || {})) node.setAttribute(name, String(value));
  add(node, children);
  return node;
}

// Other children in place of what was there; what had the focus keeps it, by its `data-key`.
export function fill(node, ...children) {
  const active = node.contains(document.activeElement) ? document.activeElement.getAttribute("data-key") : null;
  const fragment = document.createDocumentFragment();
  add(fragment, children);
  node.replaceChildren(fragment);
  if (active !== null) {
    const again = [...node.querySelectorAll("[data-key]")].find((each) => each.getAttribute("data-key") === active);
    if (again) again.focus({ preventScroll: true });
  }
  return node;
}

export function section(title, { count = null, link = null, id = null } = {}, ...children) {
  return el("section", { id },
    el("header", {}, el("h2", {}, title), count === null ? null : el("span", { class: "quiet" }, number(count)), el("span", { class: "grow" }), link),
    ...children);
}

export function table(heads, rows, label) {
  const cells = heads.map((head) => (Array.isArray(head) ? el("th", { class: head[1], scope: "col" }, head[0]) : el("th", { scope: "col" }, head)));
  return el("div", { class: "scroll" }, el("table", { "aria-label": label }, el("thead", {}, el("tr", {}, cells)), el("tbody", {}, rows)));
}

// A row that is opened as a whole: its first link says where.
export function rowTo(href, key, ...cells) {
  const open = (event) => {
    if (event.target.closest("a, button, input") || String(getSelection())) return;
    location.hash = href.slice(1);
  };
  return el("tr", { class: "go", "data-row": key, on: { click: open } }, cells);
}

export const link = (href, key, ...children) => el("a", { href, "data-key": key }, children);

export function pill(status) {
  return el("span", { class: `pill ${status}` }, status.replaceAll("_", " "));
}

export function empty(title, text, command) {
  return el("div", { class: "empty" }, el("b", {}, title), text ? el("div", {}, text) : null, command ? el("code", {}, command) : null);
}

export function notice(text) {
  const shown = el("div", {}, text);
  document.getElementById("notices").append(shown);
  setTimeout(() => shown.remove(), 6000);
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    notice("Copied.");
  } catch {
    notice(`Could not copy: select it by hand. ${text}`);
  }
}

export function command(text) {
  return el("div", { class: "command" }, el("code", {}, text), el("button", { class: "plain", type: "button", on: { click: () => copy(text) } }, "Copy"));
}

const grouped = new Intl.NumberFormat("en");
export const number = (value) => (value === null || value === undefined ? "" : grouped.format(value));

export function short(value) {
  if (!value) return "0";
  if (value < 10000) return grouped.format(value);
  for (const [size, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= size) return `${(value / size).toFixed(value < 100 * size ? 1 : 0)}${letter}`;
  }
  return String(value);
}

export function seconds(value) {
  if (value === null || value === undefined) return "";
  if (value < 0.001) return value ? "<1 ms" : "0 ms";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 60) return `${value.toFixed(value < 10 ? 2 : 1)} s`;
  const minutes = Math.floor(value / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(value % 60)} s`;
  if (minutes < 2880) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(minutes / 1440)} d ${Math.floor((minutes % 1440) / 60)} h`;
}

export function money(value) {
  if (!value) return "";
  if (value < 0.0001) return "<$0.0001";
  return `$${value.toFixed(value < 1 ? 4 : 2)}`;
}

export function tokens(usage) {
  const all = (usage.input_tokens || 0) + (usage.output_tokens || 0);
  return all ? short(all) : "";
}

export function ago(at) {
  const past = Math.max(0, Date.now() / 1000 - at);
  if (past < 2) return "now";
  if (past < 60) return `${Math.floor(past)} s ago`;
  if (past < 3600) return `${Math.floor(past / 60)} min ago`;
  if (past < 86400) return `${Math.floor(past / 3600)} h ago`;
  return `${Math.floor(past / 86400)} d ago`;
}

// A time that grows old by itself.
export function since(at) {
  return el("time", { "data-since": at, datetime: new Date(at * 1000).toISOString(), title: moment(at) }, ago(at));
}

setInterval(() => {
  for (const node of document.querySelectorAll("time[data-since]")) {
    const text = ago(Number(node.getAttribute("data-since")));
    if (node.textContent !== text) node.textContent = text;
  }
}, 1000);

export function moment(at) {
  const date = new Date(at * 1000);
  const two = (part) => String(part).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${clock(at)}`;
}

export function clock(at) {
  const date = new Date(at * 1000);
  const two = (part) => String(part).padStart(2, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

export const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;

export function barOf({ done, failed, running, cancelled, total }) {
  const all = Math.max(total || 0, done + failed + running + cancelled, 1);
  const parts = Object.entries({ done, failed, cancelled, running }).filter(([, count]) => count);
  const label = parts.map(([name, count]) => `${number(count)} ${name}`).join(", ") || "nothing yet";
  const bar = el("div", { class: "bar", role: "img", "aria-label": label, title: label });
  for (const [name, count] of parts) {
    const piece = el("i", { class: name });
    piece.style.width = `${Math.max(1, (100 * count) / all)}%`;
    bar.append(piece);
  }
  return bar;
}
