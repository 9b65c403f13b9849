// What runs want to know from people: forms made of the schemas of the answers.

import { get, post } from "./api.js";
import { el, empty, fill, link, notice, section, since } from "./dom.js";
import { headOf, toRun } from "./frame.js";

export async function showQuestions(main, route, shell) {
  shell.crumbs(["Questions"]);
  const { questions } = await get("questions", {}, route.signal);
  if (!route.isCurrent()) return null;
  shell.questions(questions.length);
  fill(main, el("div", { class: "head" }, el("h1", {}, "Questions")), listOf(questions, shell, true, (open) => shell.questions(open)));
  return null;
}

export async function showRunQuestions(main, route, shell) {
  const data = await get("run", { run: route.parts[1] }, route.signal);
  if (!route.isCurrent()) return null;
  fill(main, headOf(data, "questions", shell), listOf(data.questions, shell, false));
  return null;
}

function listOf(questions, shell, withRun, changed = () => {}) {
  if (!questions.length) return empty("No open questions.", "What a run asks a person appears here.");
  const words = (open) => (open === 0 ? "All are answered" : open === 1 ? "One question is open" : `${open} questions are open`);
  let open = questions.length;
  const answered = () => {
    open -= 1;
    list.querySelector("h2").textContent = words(open);
    changed(open);
  };
  const list = section(words(open), {}, questions.map((each) => questionCard(each, shell.about, withRun, answered)));
  return list;
}

export function questionCard(question, about, withRun = false, answered = () => {}) {
  const field = fieldOf(question.schema, question.schema, "Answer");
  const problem = el("div", { class: "bad", role: "alert" }, question.problem ? `Not accepted: ${question.problem}` : "");
  const send = el("button", { class: "primary", type: "submit" }, "Answer");
  const form = el("form", { class: "form", on: { submit: (event) => { event.preventDefault(); answer(); } } }, field.node, el("div", { class: "tools" }, send), problem);
  const card = el("div", { class: "card", "data-question": question.id },
    el("div", { class: "ask" }, question.text),
    el("div", { class: "about" }, withRun ? link(toRun(question.run_id), null, question.run_id) : null, el("span", { class: "mono anywhere" }, question.address), el("span", {}, "asked ", since(question.asked_at))),
    about.read_only ? null : form);
  async function answer() {
    let value;
    try {
      value = field.value();
    } catch (error) {
      fill(problem, error.message);
      return;
    }
    send.disabled = true;
    try {
      const said = await post("answer", { run: question.run_id, id: question.id, answer: value });
      notice(`Answered: ${question.text}`);
      fill(card, el("div", { class: "quiet" }, `Answered: ${question.text}`), el("div", { class: "quiet anywhere" }, said.next));
      answered();
    } catch (error) {
      send.disabled = false;
      fill(problem, error.message);
    }
  }
  return card;
}

// -- forms of schemas --------------------------------------------------------------------------------------------------

function followed(schema, root) {
  if (schema && typeof schema.$ref === "string" && root && root.$defs) return { ...root.$defs[schema.$ref.split("/").pop()], ...schema, $ref: undefined };
  return schema || {};
}

// A node, and what gives its value; that throws an Error with one sentence where it is none.
function fieldOf(given, root, name) {
  const schema = followed(given, root);
  const choices = schema.enum || (schema.const !== undefined ? [schema.const] : null);
  if (choices) return choiceField(name, schema, choices);
  const optional = (schema.anyOf || []).find((each) => each.type !== "null");
  if (schema.anyOf && optional && schema.anyOf.some((each) => each.type === "null")) return optionalField(name, optional, root, schema);
  if (schema.type === "boolean") return choiceField(name, schema, [true, false], ["Yes", "No"]);
  if (schema.type === "integer" || schema.type === "number") return numberField(name, schema);
  if (schema.type === "string") return textField(name, schema);
  if (schema.type === "object" && schema.properties) return objectField(name, schema, root);
  if (schema.type === "array") return listField(name, schema, root);
  return jsonField(name, schema);
}

let numbering = 0;

function labelled(name, schema, input) {
  const id = `field-${(numbering += 1)}`;
  input.id = id;
  return el("div", { class: "field" }, el("label", { for: id }, schema.title || name), input, schema.description ? el("small", {}, schema.description) : null);
}

function choiceField(name, schema, values, words = null) {
  const group = `choice-${(numbering += 1)}`;
  const inputs = values.map((value, i) => el("input", { type: "radio", name: group, value: String(i), checked: schema.default === value }));
  const node = el("fieldset", { class: "field" }, el("legend", {}, schema.title || name),
    el("div", { class: "choices" }, values.map((value, i) => el("label", { class: "button" }, inputs[i], words ? words[i] : String(value)))), schema.description ? el("small", {}, schema.description) : null);
  return { node, value: () => { const at = inputs.findIndex((each) => each.checked); if (at < 0) throw new Error(`${schema.title || name}: choose one.`); return values[at]; } };
}

function numberField(name, schema) {
  const input = el("input", { type: "number", step: schema.type === "integer" ? 1 : "any", min: schema.minimum, max: schema.maximum, value: schema.default ?? "" });
  return { node: labelled(name, schema, input), value: () => { if (input.value === "" || Number.isNaN(input.valueAsNumber)) throw new Error(`${schema.title || name}: a number is wanted.`); return input.valueAsNumber; } };
}

function textField(name, schema) {
  const isLong = !schema.format && !(schema.maxLength && schema.maxLength <= 80);
  const input = isLong ? el("textarea", { rows: 2, value: schema.default ?? "" }) : el("input", { type: "text", value: schema.default ?? "" });
  return { node: labelled(name, schema, input), value: () => input.value };
}

function objectField(name, schema, root) {
  const fields = Object.entries(schema.properties).map(([key, inner]) => [key, fieldOf(inner, root, key), (schema.required || []).includes(key)]);
  const node = el("fieldset", { class: "field" }, el("legend", {}, schema.title || name), el("div", { class: "inner" }, fields.map(([, field]) => field.node)));
  return { node, value: () => Object.fromEntries(fields.flatMap(([key, field, isNeeded]) => {
    try {
      return [[key, field.value()]];
    } catch (error) {
      if (isNeeded) throw error;
      return [];
    }
  })) };
}

function optionalField(name, inner, root, schema) {
  const field = fieldOf({ ...inner, title: schema.title || inner.title, description: schema.description }, root, name);
  const none = el("input", { type: "checkbox" });
  return { node: el("div", { class: "field" }, field.node, el("label", {}, none, " none")), value: () => (none.checked ? null : field.value()) };
}

function listField(name, schema, root) {
  const fields = [];
  const list = el("div", { class: "inner" });
  const more = () => {
    const field = fieldOf(schema.items || {}, root, `${fields.length + 1}`);
    fields.push(field);
    list.append(field.node);
  };
  const fewer = () => { const last = fields.pop(); if (last) last.node.remove(); };
  const node = el("fieldset", { class: "field" }, el("legend", {}, schema.title || name), list, el("div", { class: "tools" }, el("button", { type: "button", on: { click: more } }, "Add"), el("button", { type: "button", class: "plain", on: { click: fewer } }, "Remove the last")));
  return { node, value: () => fields.map((field) => field.value()) };
}

function jsonField(name, schema) {
  const input = el("textarea", { rows: 2 });
  return { node: labelled(`${name} (JSON, or a word)`, schema, input), value: () => { try { return JSON.parse(input.value); } catch { return input.value.trim(); } } };
}
