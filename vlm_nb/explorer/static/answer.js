// The answer as it grows, or two side by side: text that is only ever text, its phrases linked with their boxes.

import { phraseStyles } from "./geometry.js";
import { h, problemNodes, say, set } from "./dom.js";

const STATUS = { waiting: "Generating…", running: "Generating…", done: "Done", stopped: "Stopped", error: "Failed" };
const FOLLOW_PIXELS = 24;
const isOpen = (answer) => answer?.status === "waiting" || answer?.status === "running";

/** One model's answer. */
class ReplyPane {
  constructor(letter, hover) {
    this.letter = letter;
    this.hover = hover;
    this.text = "";
    this.name = h("span", { class: "vlmx-model", dir: "auto" });
    this.head = h("p", { class: "vlmx-reply-head", hidden: true },
      h("span", { class: "vlmx-letter" }, letter), this.name, h("span", { class: "vlmx-line-key", "data-side": letter, "aria-hidden": "true" }));
    this.body = h("div", { class: "vlmx-text", dir: "auto" });
    this.problem = h("div", { class: "vlmx-problem", role: "alert" });
    this.facts = h("p", { class: "vlmx-facts" });
    this.root = h("div", { class: "vlmx-one" }, this.head, this.body, this.problem, this.facts);
  }

  show(answer, items, styles, compared) {
    const open = isOpen(answer);
    this.head.hidden = !compared;
    say(this.name, answer.model || "");
    set(this.root, compared ? { role: "group", "aria-label": `Answer ${this.letter}, ${answer.model}` } : { role: null, "aria-label": null });
    this.write(open ? answer.text : finalText(answer, items), open ? [] : items, styles);
    this.root.classList.toggle("is-waiting", open && !answer.text);
    this.fail(answer.problem);
    say(this.facts, open || answer.status === "idle" ? "" : factsOf(answer, compared));
  }

  // While text grows only its end is added: what is selected stays selected, what is read is not laid out again.
  write(text, items, styles) {
    if (!items.length && this.plain && text.startsWith(this.text) && this.body.firstChild) {
      this.body.firstChild.appendData(text.slice(this.text.length));
    } else if (text !== this.text || items.length || !this.plain) {
      this.body.replaceChildren(...marked(text, items, styles, this.hover));
    }
    this.plain = !items.length;
    this.text = text;
  }

  fail(problem) {
    if (JSON.stringify(problem) === this.failed) return;
    this.failed = JSON.stringify(problem);
    this.problem.replaceChildren(...(problem ? problemNodes(problem) : []));
  }
}

/** `on`: hover(phrase|null). `tools` is a bar that stays at the foot of the scrolled part: it is what Tab stops at there. */
export class AnswerPane {
  constructor(on, tools) {
    this.question = h("p", { class: "vlmx-question", dir: "auto", hidden: true });
    this.panes = ["A", "B"].map((letter) => new ReplyPane(letter, on.hover));
    this.verdict = h("p", { class: "vlmx-verdict", hidden: true });
    this.scroll = h("div", { class: "vlmx-answer", role: "region", "aria-label": "Answer" },
      this.question, this.verdict, h("div", { class: "vlmx-sides" }, this.panes.map((pane) => pane.root)), tools);
    this.status = h("span", { class: "vlmx-status", role: "status" });
    this.root = h("section", { class: "vlmx-reply" }, this.scroll);
    this.panes[1].root.hidden = true;
  }

  /** What Copy takes: the answer, or both with their models' names. */
  get text() {
    if (!this.compared) return this.panes[0].text;
    return this.panes.map((pane) => `${pane.letter} ${pane.name.textContent}: ${pane.text}`).join("\n\n");
  }

  show(answer, rival, items) {
    this.compared = rival?.number === answer.number && answer.number > 0;
    const open = isOpen(answer) || (this.compared && isOpen(rival));
    const follow = this.scroll.scrollHeight - this.scroll.scrollTop - this.scroll.clientHeight < FOLLOW_PIXELS;
    const styles = phraseStyles(items);
    say(this.question, questionOf(answer));
    this.question.hidden = !this.question.textContent || answer.status === "idle";
    this.panes[1].root.hidden = !this.compared;
    this.panes[0].show(answer, items.filter((item) => !item.side), styles, this.compared);
    if (this.compared) this.panes[1].show(rival, items.filter((item) => item.side), styles, true);
    say(this.verdict, (this.compared && rival.verdict) || "");
    this.verdict.hidden = !this.verdict.textContent;
    this.scroll.classList.toggle("is-compared", this.compared);
    say(this.status, answer.task === "draw" ? "" : this.compared ? statusOfTwo(answer, rival) : STATUS[answer.status] || "");
    if (open && follow && answer.number === this.number) this.scroll.scrollTop = this.scroll.scrollHeight;
    if (answer.number !== this.number) this.scroll.scrollTop = 0;
    this.number = answer.number;
  }

  mark(phrases) {
    for (const node of this.scroll.querySelectorAll("mark")) node.classList.toggle("is-hot", phrases.has(node.dataset.phrase));
  }
}

function questionOf({ task, prompt }) {
  return { caption: "Describe this image", ground: prompt ? `Find: ${prompt}` : "Find every object", draw: "" }[task] ?? prompt;
}

function statusOfTwo(answer, rival) {
  const both = [answer.status, rival.status];
  if (isOpen(answer) || isOpen(rival)) return STATUS.running;
  if (both.includes("stopped")) return STATUS.stopped;
  if (both.every((status) => status === "error")) return STATUS.error;
  return both.includes("error") ? "Done, but one model failed" : STATUS.done;
}

function finalText(answer, items) {
  if (answer.task === "draw" || answer.status === "idle") return answer.text;
  if (answer.grounding === "none") return answer.text || (answer.task === "ground" && answer.prompt ? `No match for '${answer.prompt}'` : "No object was found");
  if (answer.grounding === "unparsed") return answer.text || "The answer has boxes that could not be read.";
  if (!answer.text && items.length) return items.length === 1 ? "1 box" : `${items.length} boxes`;
  return answer.text;
}

function factsOf(answer, compared) {
  const cost = [compared ? "" : answer.model, answer.tokens ? `${answer.tokens} tokens` : "", answer.seconds ? `${answer.seconds.toFixed(1)} s` : ""];
  return [...cost.filter(Boolean), ...answer.notes].join(" · ");
}

// The text, with each phrase that has boxes as a mark that can be hovered.
function marked(text, items, styles, hover) {
  const phrases = [...new Set(items.map((item) => item.phrase))].filter(Boolean).sort((a, b) => b.length - a.length);
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
