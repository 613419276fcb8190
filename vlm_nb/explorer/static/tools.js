// Export, copy and history.

import { h, roving, say, set } from "./dom.js";

/** Export, copy and history: one stop of the Tab key. `on`: exported(format), copy() → text, recall(number). */
export class Tools {
  constructor(on, signal) {
    this.on = on;
    this.exportButton = this.menuButton("Export", signal);
    this.copy = h("button", { type: "button", class: "vlmx-button" }, "Copy");
    this.historyButton = this.menuButton("History", signal);
    this.menu = h("div", { class: "vlmx-after vlmx-menu", hidden: true });
    this.bar = h("div", { class: "vlmx-toolbar", role: "toolbar", "aria-label": "Answer tools" }, this.exportButton, this.copy, this.historyButton);
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
        h("span", { class: "vlmx-turn-text", dir: "auto" }, told(turn)));
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

function told(turn) {
  if (turn.models.length > 1) return `${turn.models.filter(Boolean).join(" and ")}${turn.verdict ? `: ${turn.verdict}` : ""}`;
  return turn.text || (turn.boxes ? `${turn.boxes} boxes` : turn.status);
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
