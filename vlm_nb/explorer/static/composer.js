// The question: tasks, a second model to compare with, the prompt, Send that becomes Stop in place.

import { h, say, uid } from "./dom.js";

const TASKS = [
  { id: "ask", label: "Ask", hint: "Ask a question about the image" },
  { id: "caption", label: "Caption", hint: "Nothing to write: the image is described" },
  { id: "ground", label: "Find", hint: "What to find; leave empty to find every object" },
];
const DOUBLE_CLICK_MS = 500;
const KEYS = "Enter sends, Shift+Enter breaks the line. Alt with the up or down arrow changes the task. "
  + "From Send, the left arrow goes to the task and the right arrow to the model to compare with.";

/** `on`: send({task, prompt, rival}), stop(), dropRegion(), keepRegion(). */
export class Composer {
  constructor(on, signal) {
    this.on = on;
    this.task = "ask";
    this.running = false;
    this.sentAt = 0;
    this.build();
    this.group.addEventListener("change", (e) => this.choose(e.target.value), { signal });
    this.prompt.addEventListener("keydown", (e) => this.key(e), { signal });
    this.prompt.addEventListener("input", () => this.need.replaceChildren(), { signal });
    this.send.addEventListener("click", () => this.press(), { signal });
    this.send.addEventListener("keydown", (e) => this.leave(e), { signal });
  }

  // The tasks and the second model are no stops of the Tab key: the prompt and Send have keys for them.
  build() {
    const name = uid("task");
    const keys = uid("keys");
    this.radios = TASKS.map((task) => h("input", { type: "radio", name, value: task.id, id: uid("radio"), tabindex: "-1" }));
    this.radios[0].checked = true;
    this.group = h("div", { class: "vlmx-tasks", role: "radiogroup", "aria-label": "Task" },
      TASKS.map((task, i) => [this.radios[i], h("label", { for: this.radios[i].id }, task.label)]));
    this.rival = h("select", { id: uid("rival"), tabindex: "-1" });
    this.compare = h("div", { class: "vlmx-compare", hidden: true }, h("label", { for: this.rival.id }, "Compare with"), this.rival);
    this.prompt = h("textarea", {
      class: "vlmx-prompt", rows: "2", dir: "auto", "aria-label": "Prompt", placeholder: TASKS[0].hint, "aria-describedby": keys,
    });
    this.send = h("button", { type: "button", class: "vlmx-button vlmx-primary vlmx-send", "aria-describedby": keys }, "Send");
    this.need = h("p", { class: "vlmx-need", role: "alert" });
    this.chip = h("div", { class: "vlmx-chip", hidden: true });
    this.root = h("div", { class: "vlmx-composer" }, h("div", { class: "vlmx-choose" }, this.group, this.compare), this.chip,
      h("div", { class: "vlmx-ask" }, this.prompt, this.send), this.need, h("p", { id: keys, class: "vlmx-hidden" }, KEYS));
  }

  choose(id) {
    this.task = id;
    this.need.replaceChildren();
    const place = TASKS.findIndex((one) => one.id === id);
    this.radios[place].checked = true;
    this.prompt.placeholder = TASKS[place].hint;
    this.prompt.readOnly = id === "caption"; // not disabled: it keeps its place in the Tab order, and Enter sends
    this.prompt.classList.toggle("is-idle", id === "caption");
  }

  key(event) {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (step && event.altKey) return this.turn(event, step);
    if (event.key !== "Enter" || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    if (event.shiftKey) return this.breakLine();
    if (!this.running) this.start();
  }

  turn(event, step) {
    event.preventDefault();
    const place = TASKS.findIndex((one) => one.id === this.task);
    this.choose(TASKS[(place + step + TASKS.length) % TASKS.length].id);
  }

  leave(event) {
    const back = event.key === "ArrowLeft" || event.key === "ArrowUp";
    const on = (event.key === "ArrowRight" || event.key === "ArrowDown") && !this.compare.hidden;
    if (!back && !on) return;
    event.preventDefault();
    (back ? this.radios.find((radio) => radio.checked) : this.rival).focus();
  }

  // By hand: JupyterLab 4.6 takes line breaks away from text fields in cells (Shift+Enter is its "run").
  breakLine() {
    if (this.prompt.readOnly) return;
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
    if (this.task === "ask" && !prompt) return this.miss();
    this.sentAt = performance.now();
    this.setRunning(true);
    this.on.send({ task: this.task, prompt, rival: this.rival.value || null });
  }

  miss() {
    this.need.replaceChildren("Write a question first; Caption and Find need none.");
    this.prompt.focus();
  }

  /** Send ↔ Stop: the same button, so the focus stays. */
  setRunning(running) {
    this.running = running;
    say(this.send, running ? "Stop" : "Send");
    this.send.classList.toggle("is-stop", running);
  }

  /** The models that answers can be compared with: {id, label}; without any the choice is not there. */
  setRivals(rivals) {
    const chosen = this.rival.value;
    this.rival.replaceChildren(h("option", { value: "" }, "No other model"), ...rivals.map(({ id, label }) => h("option", { value: id }, label)));
    this.rival.value = rivals.some(({ id }) => id === chosen) ? chosen : "";
    this.compare.hidden = !rivals.length;
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
