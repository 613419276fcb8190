// The image bar: add images, page through them.

import { field, h, imageUrl, roving, say, set, uid } from "./dom.js";

const KEPT_THUMBS = 120;
const FIRST_THUMBS = 13; // until the width of the strip is known
const MOST_THUMBS = 50;
const THUMB_PIXELS = 48; // with the gap

/** `on`: pick(text), files(list), edited(), go(index), wantThumbs(indices). */
export class ImageBar {
  constructor(on, signal) {
    this.on = on;
    this.album = { count: 0, index: 0 };
    this.thumbs = new Map();
    this.fitting = FIRST_THUMBS;
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
    on(this.source, "input", () => this.on.edited());
    on(this.add, "click", () => this.pick());
    on(this.upload, "click", () => this.file.click());
    on(this.file, "change", () => { this.on.files([...this.file.files]); this.file.value = ""; });
    on(this.back, "click", () => this.step(-1));
    on(this.next, "click", () => this.step(1));
    on(this.number, "focus", () => this.number.select());
    on(this.number, "blur", () => this.setAlbum(this.album));
    on(this.pager, "keydown", (e) => this.key(e));
    on(this.strip, "click", (e) => e.target.closest("[data-index]") && this.go(Number(e.target.closest("[data-index]").dataset.index)));
    const widths = new ResizeObserver(() => this.fit());
    widths.observe(this.strip);
    signal.addEventListener("abort", () => widths.disconnect());
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

  // As many thumbnails as the row takes.
  fit() {
    const fitting = Math.max(1, Math.min(MOST_THUMBS, Math.floor((this.strip.clientWidth + 4) / THUMB_PIXELS)));
    if (!this.strip.clientWidth || fitting === this.fitting) return;
    this.fitting = fitting;
    this.drawStrip();
  }

  drawStrip() {
    const { count, index } = this.album;
    this.strip.hidden = count < 2;
    if (count < 2) return this.strip.replaceChildren();
    const first = Math.max(0, Math.min(index - Math.floor(this.fitting / 2), count - this.fitting));
    const places = [...Array(Math.min(count, this.fitting)).keys()].map((i) => first + i);
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
