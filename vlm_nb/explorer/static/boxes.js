// The accessible side of the overlay: a listbox of the boxes, one stop of the Tab key, filtered by typing.

import { numbered, phraseStyles } from "./geometry.js";
import { h, say, set, uid } from "./dom.js";

/** `on` holds the listeners: hover(id|null), select(id|null), remove(id), undo(), rename(id, phrase). */
export class BoxList {
  constructor(on, signal) {
    this.on = on;
    this.items = [];
    this.filter = "";
    this.current = null;
    const label = uid("boxes");
    this.count = h("span", { class: "vlmx-count" });
    this.search = h("input", {
      class: "vlmx-filter", type: "search", tabindex: "-1", placeholder: "Filter", "aria-label": "Filter the boxes", hidden: true, dir: "auto",
    });
    this.list = h("ul", { class: "vlmx-list", role: "listbox", tabindex: "0", "aria-labelledby": label });
    this.none = h("p", { class: "vlmx-none" });
    this.root = h("section", { class: "vlmx-boxes" },
      h("div", { class: "vlmx-head" }, h("span", { id: label, class: "vlmx-title" }, "Boxes"), this.count, this.search), this.none, this.list);
    this.list.addEventListener("keydown", (e) => this.key(e), { signal });
    this.list.addEventListener("focus", () => this.focused(), { signal });
    this.list.addEventListener("blur", () => this.on.hover(null), { signal });
    this.search.addEventListener("input", () => this.narrow(this.search.value), { signal });
    this.search.addEventListener("keydown", (e) => e.key === "ArrowDown" && this.list.focus(), { signal });
  }

  /** Show boxes; `none` is the line for an empty list, `compared` whether they are of two models. */
  setItems(items, none, compared) {
    this.items = numbered(items, compared);
    this.styles = phraseStyles(items);
    say(this.none, none);
    this.none.hidden = items.length > 0 || !none;
    this.search.hidden = items.length <= 12;
    if (this.search.hidden) this.filter = this.search.value = "";
    this.render();
  }

  render() {
    const wanted = this.filter.toLowerCase();
    const rows = this.items.filter((item) => item.phrase.toLowerCase().includes(wanted));
    say(this.count, this.items.length ? (wanted ? `${rows.length} of ${this.items.length}` : String(this.items.length)) : "");
    this.list.replaceChildren(...rows.map((item) => this.row(item)));
    this.shown = rows.map((item) => item.id);
    this.list.hidden = !this.items.length;
    this.mark(new Set(), this.current);
  }

  row(item) {
    const style = this.styles.get(item.phrase);
    const node = h("li", { class: "vlmx-row", role: "option", id: uid("box"), "data-id": item.id, "aria-selected": "false" },
      h("span", { class: "vlmx-swatch", style: `background:${style.colour};color:${style.ink}`, "aria-hidden": item.letter ? null : "true" }, item.number),
      h("span", { class: "vlmx-phrase", dir: "auto" }, item.phrase),
      item.match ? h("span", { class: "vlmx-iou", title: "How much this box and the other model's overlap" }, `IoU ${item.iou.toFixed(2)}`) : null,
      item.source === "human" ? h("span", { class: "vlmx-badge", title: item.changed ? "Corrected by hand" : "Drawn by hand" }, item.changed ? "edited" : "drawn") : null);
    node.addEventListener("pointerenter", () => this.on.hover(item.id));
    node.addEventListener("pointerleave", () => this.on.hover(null));
    node.addEventListener("click", () => { this.list.focus(); this.on.select(item.id); });
    node.addEventListener("dblclick", () => this.edit(item.id));
    return node;
  }

  mark(hot, selected) {
    this.current = selected;
    let active = null;
    for (const node of this.list.children) {
      const id = Number(node.dataset.id);
      node.classList.toggle("is-hot", hot.has(id));
      set(node, { "aria-selected": id === selected ? "true" : "false" });
      if (id === selected) active = node;
    }
    set(this.list, { "aria-activedescendant": active?.id });
    if (active && document.activeElement === this.list) active.scrollIntoView({ block: "nearest" });
  }

  focused() {
    if (this.current === null && this.shown.length) this.on.select(this.shown[0]);
    else if (this.current !== null) this.on.hover(this.current);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) {
      if (event.key.toLowerCase() === "z" && !event.shiftKey) this.take(event, () => this.on.undo());
      return;
    }
    const place = this.shown.indexOf(this.current);
    const go = (index) => this.shown.length && this.on.select(this.shown[Math.min(this.shown.length - 1, Math.max(0, index))]);
    const actions = {
      ArrowDown: () => go(place + 1), ArrowUp: () => go(place < 0 ? 0 : place - 1), Home: () => go(0), End: () => go(this.shown.length - 1),
      Delete: () => this.current !== null && this.on.remove(this.current),
      F2: () => this.edit(this.current), Enter: () => this.edit(this.current),
      Backspace: () => this.narrow(this.filter.slice(0, -1)),
    };
    if (actions[event.key]) this.take(event, actions[event.key]);
    else if (event.key === "Escape" && this.filter) this.take(event, () => this.narrow(""));
    else if (event.key.length === 1 && !this.search.hidden) this.take(event, () => this.narrow(this.filter + event.key));
  }

  take(event, action) {
    event.preventDefault();
    event.stopPropagation();
    action();
  }

  narrow(text) {
    this.filter = text;
    if (this.search.value !== text) this.search.value = text;
    this.render();
  }

  /** Rename a box in place: Enter keeps, Escape leaves it as it was. */
  edit(id) {
    const row = [...this.list.children].find((node) => Number(node.dataset.id) === id);
    const item = this.items.find((one) => one.id === id);
    if (!row || !item || row.querySelector("input")) return;
    const input = h("input", { class: "vlmx-rename", type: "text", "aria-label": "New name", dir: "auto" });
    input.value = item.phrase;
    const done = (keep) => {
      if (done.called) return;
      done.called = true;
      const text = input.value.trim();
      this.render();
      this.list.focus();
      if (keep && text && text !== item.phrase) this.on.rename(id, text);
    };
    input.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter" && !event.isComposing) done(true);
      if (event.key === "Escape") done(false);
    });
    input.addEventListener("blur", () => done(true));
    row.querySelector(".vlmx-phrase").replaceWith(input);
    input.focus();
    input.select();
  }
}
