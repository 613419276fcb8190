// Small helpers for building the page. Text only ever goes in as text nodes: nothing here parses markup.

let made = 0;

// The notebook's own keys (A, B, X, D D, …) match on the focused element itself, so each needs the attribute.
const FOCUSABLE = ["button", "input", "select", "textarea", "summary"];

/** An id that is unique in the page. */
export const uid = (name) => `vlmx-${name}-${(made += 1)}-${Math.random().toString(36).slice(2, 8)}`;

/** An element with attributes (null and false leave one out) and children (strings become text). */
export function h(tag, attributes = {}, ...children) {
  const node = fill(document.createElement(tag), attributes, children);
  if (FOCUSABLE.includes(tag) || attributes.tabindex !== undefined) node.setAttribute("data-lm-suppress-shortcuts", "true");
  return node;
}

/** The same for SVG. */
export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  set(node, attributes);
  node.append(...children.flat(2).filter((child) => child !== null && child !== undefined));
  return node;
}

/** Set or remove attributes. */
export function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) node.removeAttribute(name);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  return node;
}

/** Change a node's text only when it differs: a status that is set twice would be read twice. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A group that is one stop of the Tab key: arrow keys move between its controls. */
export function roving(group, signal) {
  const controls = () => [...group.querySelectorAll("button:not([disabled]):not([hidden]), input, [role=radio]")]
    .filter((control) => !control.closest("[hidden]"));
  const update = (current) => {
    for (const control of controls()) control.tabIndex = control === current ? 0 : -1;
  };
  group.addEventListener("focusin", (event) => update(event.target), { signal });
  group.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const list = controls();
    const place = list.indexOf(event.target);
    if (!step || place < 0 || event.altKey || event.ctrlKey || keepsArrows(event.target)) return;
    event.preventDefault();
    list[(place + step + list.length) % list.length].focus();
  }, { signal });
  return () => {
    const list = controls();
    if (!list.some((control) => control.tabIndex === 0)) update(list[0]);
  };
}

const keepsArrows = (node) => node.tagName === "INPUT" && !["radio", "checkbox"].includes(node.type);

/** A control with its label above it. */
export function field(label, control, extra = "") {
  return h("div", { class: `vlmx-field ${extra}` }, h("label", { for: control.id }, label), control);
}

/** An error in one line, and the details folded away. */
export function problemNodes(problem) {
  const details = problem.detail ? h("details", {}, h("summary", {}, "Details"), h("pre", {}, problem.detail)) : null;
  return [h("p", { dir: "auto" }, problem.message), details].filter(Boolean);
}

/** Bytes of a message as an object URL. */
export function imageUrl(bytes) {
  return URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }));
}
