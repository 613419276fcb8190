// The question and its answer: tasks, prompt, Send that becomes Stop in place, streamed text, tools.

import { phraseStyles } from "./geometry.js";
import { h, roving, say, set, uid } from "./dom.js";

const TASKS = [
  { id: "ask", label: "Ask", hint: "Ask a question about the image" },
  { id: "caption", label: "Caption", hint: "Nothing to write: the image is described" },
  { id: "ground", label: "Find", hint: "What to find; leave empty to find every object" },
];
const STATUS = { waiting: "Generating…", running: "Generating…", done: "Done", stopped: "Stopped", error: "Failed" };
const DOUBLE_CLICK_MS = 500;
const FOLLOW_PIXELS = 24;

/** `on`: send({task, prompt}), stop(), dropRegion(), keepRegion(). */
export class Composer {
  constructor(on, signal) {
    this.on = on;
    this.task = "ask";
    this.running = false;
    this.sentAt = 0;
    const name = uid("task");
    this.radios = TASKS.map((task) => h("input", { type: "radio", name, value: task.id, id: uid("radio") }));
    this.radios[0].checked = true;
    this.group = h("div", { class: "vlmx-tasks", role: "radiogroup", "aria-label": "Task" },
      TASKS.map((task, i) => [this.radios[i], h("label", { for: this.radios[i].id }, task.label)]));
    this.prompt = h("textarea", { class: "vlmx-prompt", rows: "2", dir: "auto", "aria-label": "Prompt", placeholder: TASKS[0].hint });
    this.send = h("button", { type: "button", class: "vlmx-button vlmx-primary vlmx-send" }, "Send");
    this.chip = h("div", { class: "vlmx-chip", hidden: true });
    this.root = h("div", { class: "vlmx-composer" }, this.group, this.chip, h("div", { class: "vlmx-ask" }, this.prompt, this.send));
    this.group.addEventListener("change", (e) => this.choose(e.target.value), { signal });
    this.prompt.addEventListener("keydown", (e) => this.key(e), { signal });
    this.send.addEventListener("click", () => this.press(), { signal });
  }

  choose(id) {
    this.task = id;
    const task = TASKS.find((one) => one.id === id);
    this.prompt.placeholder = task.hint;
    this.prompt.disabled = id === "caption";
  }

  key(event) {
    if (event.key !== "Enter" || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    if (event.shiftKey) return this.breakLine();
    if (!this.running) this.start();
  }

  // By hand: JupyterLab 4.6 takes line breaks away from text fields in cells (Shift+Enter is its "run").
  breakLine() {
    const { selectionStart, selectionEnd } = this.prompt;
    this.prompt.setRangeText("\n", selectionStart, selectionEnd, "end");
  }

  // The second click of a double click lands on Stop: it must not stop what the first has sent.
  press() {
    if (!this.running) this.start();
    else if (performance.now() - this.sentAt > DOUBLE_CLICK_MS) this.on.stop();
  }

  start() {
    const prompt = this.prompt.value.trim();
    if (this.task === "ask" && !prompt) return this.prompt.focus();
    this.sentAt = performance.now();
    this.setRunning(true);
    this.on.send({ task: this.task, prompt });
  }

  /** Send ↔ Stop: the same button, so the focus stays. */
  setRunning(running) {
    this.running = running;
    say(this.send, running ? "Stop" : "Send");
    this.send.classList.toggle("is-stop", running);
  }

  /** The region that the next question is about, or null. */
  setRegion(box) {
    this.chip.hidden = !box;
    if (!box) return this.chip.replaceChildren();
    const percent = box.map((value) => `${Math.round(value * 100)}%`);
    const button = (text, label, action) => {
      const node = h("button", { type: "button", class: "vlmx-chip-button", "aria-label": label, title: label }, text);
      node.addEventListener("click", action);
      return node;
    };
    this.chip.replaceChildren(
      h("span", {}, `Region ${percent[0]}, ${percent[1]} to ${percent[2]}, ${percent[3]}`),
      button("Keep as box", "Keep the region as a box", () => this.on.keepRegion()),
      button("×", "Remove the region", () => this.on.dropRegion()));
  }
}

/** `on`: hover(phrase|null), copied(). */
export class AnswerPane {
  constructor(on, signal) {
    this.on = on;
    this.text = "";
    this.question = h("p", { class: "vlmx-question", dir: "auto", hidden: true });
    this.body = h("div", { class: "vlmx-text", dir: "auto" });
    this.problem = h("div", { class: "vlmx-problem", role: "alert" });
    this.facts = h("p", { class: "vlmx-facts" });
    this.scroll = h("div", { class: "vlmx-answer", role: "region", "aria-label": "Answer" }, this.question, this.body, this.problem, this.facts);
    this.status = h("span", { class: "vlmx-status", role: "status" });
    this.root = h("section", { class: "vlmx-reply" }, this.scroll);
    const observer = new ResizeObserver(() => this.focusable());
    observer.observe(this.scroll);
    signal.addEventListener("abort", () => observer.disconnect());
  }

  // A stop of the Tab key only when there is something to scroll.
  focusable() {
    set(this.scroll, { "data-lm-suppress-shortcuts": "true", tabindex: this.scroll.scrollHeight > this.scroll.clientHeight + 1 ? "0" : null });
  }

  show(answer, items) {
    const open = answer.status === "waiting" || answer.status === "running";
    const follow = this.scroll.scrollHeight - this.scroll.scrollTop - this.scroll.clientHeight < FOLLOW_PIXELS;
    const asked = { caption: "Describe this image", ground: answer.prompt ? `Find: ${answer.prompt}` : "Find every object", draw: "" }[answer.task] ?? answer.prompt;
    say(this.question, asked);
    this.question.hidden = !asked || answer.status === "idle";
    this.write(open ? answer.text : this.finalText(answer, items), open ? [] : items);
    this.scroll.classList.toggle("is-waiting", open && !answer.text);
    this.fail(answer.problem);
    say(this.facts, open || answer.status === "idle" ? "" : factsOf(answer));
    say(this.status, answer.task === "draw" ? "" : STATUS[answer.status] || "");
    this.focusable();
    if (open && follow && answer.number === this.number) this.scroll.scrollTop = this.scroll.scrollHeight;
    if (answer.number !== this.number) this.scroll.scrollTop = 0;
    this.number = answer.number;
  }

  finalText(answer, items) {
    if (answer.task === "draw" || answer.status === "idle") return answer.text;
    if (answer.grounding === "none") return answer.text || (answer.prompt ? `No match for '${answer.prompt}'` : "No object was found");
    if (answer.grounding === "unparsed") return answer.text || "The answer has boxes that could not be read.";
    if (!answer.text && items.length) return items.length === 1 ? "1 box" : `${items.length} boxes`;
    return answer.text;
  }

  // While text grows only its end is added: what is selected stays selected, what is read is not laid out again.
  write(text, items) {
    if (!items.length && this.plain && text.startsWith(this.text) && this.body.firstChild) {
      this.body.firstChild.appendData(text.slice(this.text.length));
    } else if (text !== this.text || items.length || !this.plain) {
      this.body.replaceChildren(...marked(text, items, this.on.hover));
    }
    this.plain = !items.length;
    this.text = text;
  }

  fail(problem) {
    if (JSON.stringify(problem) === this.failed) return;
    this.failed = JSON.stringify(problem);
    this.problem.replaceChildren(...(problem ? problemNodes(problem) : []));
  }

  mark(phrases) {
    for (const node of this.body.querySelectorAll("mark")) node.classList.toggle("is-hot", phrases.has(node.dataset.phrase));
  }
}

/** One line, and the details folded away. */
export function problemNodes(problem) {
  const details = problem.detail ? h("details", {}, h("summary", {}, "Details"), h("pre", {}, problem.detail)) : null;
  return [h("p", { dir: "auto" }, problem.message), details].filter(Boolean);
}

function factsOf(answer) {
  const cost = [answer.model, answer.tokens ? `${answer.tokens} tokens` : "", answer.seconds ? `${answer.seconds.toFixed(1)} s` : ""];
  return [...cost.filter(Boolean), ...answer.notes].join(" · ");
}

// The text, with each phrase that has boxes as a mark that can be hovered.
function marked(text, items, hover) {
  const styles = phraseStyles(items);
  const phrases = [...styles.keys()].filter(Boolean).sort((a, b) => b.length - a.length);
  if (!phrases.length) return [document.createTextNode(text)];
  const pattern = new RegExp(`(${phrases.map((p) => p.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})`, "giu");
  const known = new Map(phrases.map((phrase) => [phrase.toLowerCase(), phrase]));
  return text.split(pattern).map((part) => {
    const phrase = known.get(part.toLowerCase());
    if (!phrase) return document.createTextNode(part);
    const node = h("mark", { "data-phrase": phrase, style: `--phrase:${styles.get(phrase).colour}` }, part);
    node.addEventListener("pointerenter", () => hover(phrase));
    node.addEventListener("pointerleave", () => hover(null));
    return node;
  });
}

/** Export, copy and history: one stop of the Tab key. `on`: exported(format), copy() → text, recall(number). */
export class Tools {
  constructor(on, signal) {
    this.on = on;
    this.exportButton = this.menuButton("Export", signal);
    this.copy = h("button", { type: "button", class: "vlmx-button" }, "Copy");
    this.historyButton = this.menuButton("History", signal);
    this.menu = h("div", { class: "vlmx-menu", hidden: true });
    this.bar = h("div", { class: "vlmx-toolbar", role: "toolbar", "aria-label": "Answer" }, this.exportButton, this.copy, this.historyButton);
    this.root = h("div", { class: "vlmx-after" }, this.bar, this.menu);
    this.update = roving(this.bar, signal);
    this.copy.addEventListener("click", () => this.copyText(), { signal });
    this.menu.addEventListener("keydown", (e) => e.key === "Escape" && this.closeMenu(e), { signal });
    this.update();
  }

  menuButton(label, signal) {
    const button = h("button", { type: "button", class: "vlmx-button", "aria-expanded": "false" }, label);
    button.addEventListener("click", () => this.toggle(button), { signal });
    return button;
  }

  toggle(button) {
    const open = button.getAttribute("aria-expanded") === "true";
    for (const one of [this.exportButton, this.historyButton]) set(one, { "aria-expanded": "false" });
    this.menu.hidden = open;
    if (open) return;
    set(button, { "aria-expanded": "true" });
    this.opener = button;
    this.menu.replaceChildren(button === this.exportButton ? this.exports() : this.history());
  }

  closeMenu(event) {
    event.stopPropagation();
    this.toggle(this.opener);
    this.opener.focus();
  }

  exports() {
    const formats = { json: "JSON lines", csv: "CSV table", html: "HTML page" };
    const row = ([id, label]) => {
      const button = h("button", { type: "button", class: "vlmx-button" }, label);
      button.addEventListener("click", () => this.on.exported(id));
      return button;
    };
    return h("div", { class: "vlmx-exports", role: "group", "aria-label": "Export all answers as" }, Object.entries(formats).map(row));
  }

  history() {
    if (!this.turns?.length) return h("p", { class: "vlmx-none" }, "No answers yet.");
    return h("ol", { class: "vlmx-history", "aria-label": "History" }, [...this.turns].reverse().map((turn) => {
      const text = { caption: "Caption", ground: `Find ${turn.prompt || "every object"}`, draw: "Drawn boxes" }[turn.task] || turn.prompt;
      const button = h("button", { type: "button", class: "vlmx-turn" },
        h("span", { class: "vlmx-turn-ask", dir: "auto" }, `${turn.number}. ${text}`),
        h("span", { class: "vlmx-turn-text", dir: "auto" }, turn.text || (turn.boxes ? `${turn.boxes} boxes` : turn.status)));
      button.addEventListener("click", () => this.on.recall(turn.number));
      return h("li", {}, button);
    }));
  }

  setTurns(turns) {
    this.turns = turns;
    if (!this.menu.hidden && this.opener === this.historyButton) {
      const place = [...this.menu.querySelectorAll("button")].indexOf(document.activeElement);
      this.menu.replaceChildren(this.history());
      if (place >= 0) this.menu.querySelectorAll("button")[place]?.focus();
    }
  }

  async copyText() {
    const text = this.on.copy();
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      copyBySelection(text);
    }
    say(this.copy, "Copied");
    setTimeout(() => say(this.copy, "Copy"), 1500);
  }
}

// Where a page may not use the clipboard (plain http): a selection in a field outside the view.
function copyBySelection(text) {
  const back = document.activeElement;
  const field = h("textarea", { class: "vlmx-hidden", "aria-hidden": "true" });
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
  back?.focus();
}
