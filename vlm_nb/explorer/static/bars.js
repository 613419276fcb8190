// The model bar and the image bar: choose and load a model, add images, page through them.

import { h, imageUrl, roving, say, set, uid } from "./dom.js";
import { problemNodes } from "./answer.js";

const NEIGHBOURS = 6;
const KEPT_THUMBS = 120;

/** `on`: load({model, precision, device, keep}), cancel(), unload(). */
export class ModelBar {
  constructor(on, signal) {
    this.on = on;
    const list = uid("models");
    this.model = h("input", { type: "text", list, id: uid("model"), placeholder: "demo, or a Hugging Face name or folder", autocomplete: "off", spellcheck: "false" });
    this.choices = h("datalist", { id: list });
    this.precision = h("select", { id: uid("precision") });
    this.device = h("select", { id: uid("device") });
    this.load = h("button", { type: "button", class: "vlmx-button vlmx-primary" }, "Load");
    this.unload = h("button", { type: "button", class: "vlmx-button", hidden: true }, "Unload");
    this.buttons = h("div", { class: "vlmx-toolbar", role: "group", "aria-label": "Loading" }, this.load, this.unload);
    this.bar = h("div", { class: "vlmx-progress", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100", hidden: true }, h("div", { class: "vlmx-progress-fill" }));
    this.line = h("p", { class: "vlmx-line" });
    this.problem = h("div", { class: "vlmx-problem", role: "alert" });
    this.root = h("div", { class: "vlmx-models" },
      h("div", { class: "vlmx-fields" },
        field("Model", this.model, "vlmx-wide"), this.choices, field("Quantisation", this.precision), field("Device", this.device), this.buttons),
      h("div", { class: "vlmx-under" }, this.bar, this.line), this.problem);
    this.update = roving(this.buttons, signal);
    this.load.addEventListener("click", () => this.press(), { signal });
    this.unload.addEventListener("click", () => this.on.unload(), { signal });
    this.model.addEventListener("keydown", (e) => e.key === "Enter" && !e.isComposing && this.press(), { signal });
    this.update();
  }

  press() {
    if (this.busy) return this.on.cancel();
    this.on.load({ model: this.model.value.trim() || this.model.dataset.default || "", precision: this.precision.value, device: this.device.value });
  }

  setModels(models) {
    this.choices.replaceChildren(...(models.choices || []).map(({ name, hint }) => h("option", { value: name }, hint)));
    options(this.precision, models.precisions || []);
    options(this.device, models.devices || []);
    this.current = models.current;
    if (!this.model.value && models.current) this.model.value = models.current.name;
    this.unload.hidden = !models.current;
    this.describe();
    this.update();
  }

  setLoading(state) {
    this.state = state;
    this.busy = state.status === "loading";
    say(this.load, this.busy ? "Cancel" : "Load");
    this.load.disabled = state.status === "unloading";
    this.unload.disabled = this.busy || state.status === "unloading";
    this.progress(state);
    this.problem.replaceChildren(...(state.problem ? problemNodes(state.problem) : []));
    this.describe();
  }

  progress({ status, name, done, total }) {
    const part = total ? Math.round(Math.min(1, done / total) * 100) : null;
    this.bar.hidden = status === "idle" || status === "error";
    this.bar.classList.toggle("is-vague", part === null);
    set(this.bar, { "aria-label": `Loading ${name}`, "aria-valuenow": part, "aria-valuetext": total ? `${bytes(done)} of ${bytes(total)}` : "starting" });
    this.bar.firstChild.style.width = part === null ? "" : `${part}%`;
  }

  describe() {
    const state = this.state || { status: "idle" };
    const how = state.total ? ` · ${bytes(state.done)} / ${bytes(state.total)}` : "";
    const model = this.current;
    const idle = model ? `${model.name} · ${model.facts}${model.is_demo ? " · demo: drawn scenes only" : ""}` : "No model is loaded; the first question loads the small demo model.";
    const text = { loading: `Loading ${state.name}: ${state.text}${how}`, unloading: `Unloading ${state.name}` }[state.status];
    say(this.line, text || [state.note, idle].filter(Boolean).join(" "));
  }
}

function field(label, control, extra = "") {
  return h("div", { class: `vlmx-field ${extra}` }, h("label", { for: control.id }, label), control);
}

function options(select, choices) {
  const chosen = select.value;
  select.replaceChildren(...choices.map(({ id, label }) => h("option", { value: id }, label)));
  if (choices.some(({ id }) => id === chosen)) select.value = chosen;
}

/** Bytes as people read them. */
export function bytes(count) {
  return count >= 1e8 ? `${(count / 1e9).toFixed(1)} GB` : count >= 1e5 ? `${(count / 1e6).toFixed(1)} MB` : `${Math.round(count)} B`;
}

/** `on`: pick(text), files(list), go(index), wantThumbs(indices). */
export class ImageBar {
  constructor(on, signal) {
    this.on = on;
    this.album = { count: 0, index: 0 };
    this.thumbs = new Map();
    this.source = h("input", { type: "text", id: uid("source"), placeholder: "Path, folder, glob or URL", autocomplete: "off", spellcheck: "false" });
    this.file = h("input", { type: "file", accept: "image/*", multiple: true, hidden: true, tabindex: "-1", "aria-label": "Image files" });
    this.add = h("button", { type: "button", class: "vlmx-button" }, "Add");
    this.upload = h("button", { type: "button", class: "vlmx-button" }, "Upload");
    this.picker = h("div", { class: "vlmx-toolbar vlmx-picker", role: "group", "aria-label": "Add images" },
      field("Images", this.source, "vlmx-wide"), this.add, this.upload, this.file);
    this.back = h("button", { type: "button", class: "vlmx-button vlmx-square", "aria-label": "Previous image" }, "‹");
    this.number = h("input", { type: "text", inputmode: "numeric", class: "vlmx-number", "aria-label": "Image number" });
    this.total = h("span", { class: "vlmx-total" });
    this.next = h("button", { type: "button", class: "vlmx-button vlmx-square", "aria-label": "Next image" }, "›");
    this.pager = h("div", { class: "vlmx-toolbar vlmx-pager", role: "group", "aria-label": "Pages" }, this.back, this.number, this.total, this.next);
    this.strip = h("div", { class: "vlmx-strip", hidden: true });
    this.root = h("div", { class: "vlmx-images" }, h("div", { class: "vlmx-fields" }, this.picker, this.pager), this.strip);
    this.listen(signal);
    this.number.tabIndex = 0;
    this.back.tabIndex = this.next.tabIndex = this.add.tabIndex = this.upload.tabIndex = -1;
  }

  listen(signal) {
    const on = (node, name, handler) => node.addEventListener(name, handler, { signal });
    roving(this.picker, signal);
    roving(this.pager, signal);
    on(this.source, "keydown", (e) => e.key === "Enter" && !e.isComposing ? this.pick() : this.leave(e, this.add));
    on(this.add, "click", () => this.pick());
    on(this.upload, "click", () => this.file.click());
    on(this.file, "change", () => { this.on.files([...this.file.files]); this.file.value = ""; });
    on(this.back, "click", () => this.step(-1));
    on(this.next, "click", () => this.step(1));
    on(this.number, "focus", () => this.number.select());
    on(this.number, "blur", () => this.setAlbum(this.album));
    on(this.pager, "keydown", (e) => this.key(e));
    on(this.strip, "click", (e) => e.target.closest("[data-index]") && this.go(Number(e.target.closest("[data-index]").dataset.index)));
    signal.addEventListener("abort", () => this.thumbs.forEach((thumb) => thumb.url && URL.revokeObjectURL(thumb.url)));
  }

  // From the end of the text, → goes on to the buttons: they are not stops of their own.
  leave(event, node) {
    const atEnd = this.source.selectionStart === this.source.value.length;
    if (event.key === "ArrowRight" && atEnd) { event.preventDefault(); node.focus(); }
  }

  pick() {
    const text = this.source.value.trim();
    if (!text) return this.source.focus();
    this.on.pick(text);
    this.source.value = "";
  }

  key(event) {
    const place = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
    const typed = event.target === this.number && this.number.value !== String(this.album.index + 1);
    if (event.key === "Enter" && event.target === this.number) this.jump();
    else if (place && event.target === this.number && !typed) this.step(place);
    else if (event.key === "Home" && !typed) this.go(0);
    else if (event.key === "End" && !typed) this.go(this.album.count - 1);
    else return;
    event.preventDefault();
  }

  jump() {
    const number = Number.parseInt(this.number.value, 10);
    if (Number.isFinite(number)) this.go(number - 1);
    this.number.select();
  }

  step(by) {
    this.go(this.album.index + by);
  }

  // The place changes here at once and the kernel follows: a held key does not wait for each image.
  go(index) {
    if (!this.album.count) return;
    const place = Math.min(this.album.count - 1, Math.max(0, index));
    if (place === this.album.index) return;
    this.setAlbum({ ...this.album, index: place });
    this.on.go(place);
  }

  setAlbum(album) {
    this.album = album;
    const typing = document.activeElement === this.number && this.number.selectionStart === this.number.selectionEnd && this.number.value !== "";
    if (!typing || album.index + 1 !== Number(this.number.value)) this.number.value = album.count ? String(album.index + 1) : "0";
    say(this.total, `of ${album.count}`);
    set(this.back, { "aria-disabled": album.index <= 0 || null });
    set(this.next, { "aria-disabled": album.index >= album.count - 1 || null });
    this.drawStrip();
  }

  drawStrip() {
    const { count, index } = this.album;
    this.strip.hidden = count < 2;
    if (count < 2) return this.strip.replaceChildren();
    const first = Math.max(0, Math.min(index - NEIGHBOURS, count - 2 * NEIGHBOURS - 1));
    const places = [...Array(Math.min(count, 2 * NEIGHBOURS + 1)).keys()].map((i) => first + i);
    this.strip.replaceChildren(...places.map((place) => this.thumbNode(place, place === index)));
    clearTimeout(this.wanting);
    this.wanting = setTimeout(() => {
      const missing = places.filter((place) => !this.thumbs.has(place));
      if (missing.length) this.on.wantThumbs(missing);
    }, 150);
  }

  // Pictures for the mouse; the pager is the same thing for the keyboard.
  thumbNode(place, current) {
    const thumb = this.thumbs.get(place);
    const inside = thumb?.url ? h("img", { src: thumb.url, alt: "" }) : h("span", {}, thumb?.error ? "!" : String(place + 1));
    return h("span", { class: `vlmx-thumb${current ? " is-current" : ""}${thumb?.error ? " is-broken" : ""}`, "data-index": place, title: thumb?.error || `Image ${place + 1}`, "aria-hidden": "true" }, inside);
  }

  setThumb(index, data, error) {
    const old = this.thumbs.get(index);
    if (old?.url) URL.revokeObjectURL(old.url);
    this.thumbs.delete(index);
    this.thumbs.set(index, { url: data ? imageUrl(data) : null, error });
    if (this.thumbs.size > KEPT_THUMBS) {
      const [first, thumb] = this.thumbs.entries().next().value;
      if (thumb.url) URL.revokeObjectURL(thumb.url);
      this.thumbs.delete(first);
    }
    const node = this.strip.querySelector(`[data-index="${index}"]`);
    if (node) node.replaceWith(this.thumbNode(index, index === this.album.index));
  }

  /** Forget thumbnails: the images behind the places have changed. */
  close() {
    clearTimeout(this.wanting);
  }
}
