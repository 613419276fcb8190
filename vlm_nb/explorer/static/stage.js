// The image with its boxes: zoom and pan, hover and select, regions by drag or two clicks, boxes moved by hand.

import { area, boxBetween, boxesAt, fitScale, handleAt, layOutLabels, moveBox, nextAt, numbered, panBy, phraseStyles, placeImage,
  resizeBox, toImage, toScreen, visibleBox, zoomAt } from "./geometry.js";
import { h, s, set, uid } from "./dom.js";

const DRAG_PIXELS = 4;
const SMALLEST_REGION = 6;
const WHOLE = { z: 1, cx: 0.5, cy: 0.5 };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const HELP = "Arrow keys: previous and next image, or move the selected box (Shift: 10 pixels, Alt: resize). "
  + "Plus, minus and 0: zoom. R: draw a region by two clicks. H, held: hide the boxes. Escape: back.";

/**
 * `on` holds the listeners: hover(id|null), select(id|null), region(box|null), change(id, box), remove(id), undo(),
 * rename(id), page(step | "first" | "last"), sharpen(box, side).
 */
export class Stage {
  constructor(on, signal) {
    this.on = on;
    this.items = [];
    this.styles = new Map();
    this.size = null;
    this.key = null;
    this.zoom = { ...WHOLE };
    this.region = null;
    this.selected = null;
    this.hot = new Set();
    this.gesture = null;
    this.corners = null;
    this.build();
    this.listen(signal);
    const observer = new ResizeObserver(() => this.draw());
    observer.observe(this.node);
    signal.addEventListener("abort", () => observer.disconnect());
  }

  build() {
    const help = uid("help");
    this.image = h("img", { class: "vlmx-picture", alt: "", draggable: "false", hidden: true });
    this.sharp = h("img", { class: "vlmx-picture vlmx-sharp", alt: "", draggable: "false", hidden: true });
    this.overlay = s("svg", { class: "vlmx-overlay", "aria-hidden": "true" });
    this.empty = h("div", { class: "vlmx-empty" });
    this.node = h("div", {
      class: "vlmx-stage", tabindex: "0", role: "application", "aria-roledescription": "image viewer",
      "aria-label": "Image", "aria-describedby": help,
    }, this.image, this.sharp, this.overlay, this.empty);
    this.regionButton = this.tool("Region", "Draw a region: drag on the image, or click two corners", () => this.armCorners());
    this.regionButton.setAttribute("aria-pressed", "false");
    this.tools = h("div", { class: "vlmx-tools", role: "toolbar", "aria-label": "View" },
      this.regionButton,
      this.tool("−", "Zoom out", () => this.zoomCentre(1 / 1.5)),
      this.tool("Fit", "Show the whole image", () => this.setZoom(WHOLE)),
      this.tool("+", "Zoom in", () => this.zoomCentre(1.5)));
    this.root = h("div", { class: "vlmx-frame" }, this.node, this.tools, h("p", { id: help, class: "vlmx-hidden" }, HELP));
    this.pen = document.createElement("canvas").getContext("2d");
  }

  // Out of the Tab order on purpose: each has a key on the image, which is one stop.
  tool(text, label, action) {
    const button = h("button", { type: "button", class: "vlmx-tool", tabindex: "-1", "aria-label": label, title: label }, text);
    button.addEventListener("click", action);
    return button;
  }

  listen(signal) {
    const options = { signal };
    const events = {
      pointerdown: (e) => this.down(e), pointermove: (e) => this.move(e), pointerup: (e) => this.up(e),
      pointercancel: () => this.cancel(), pointerleave: () => this.gesture || this.on.hover(null),
      keydown: (e) => this.keyDown(e), keyup: (e) => this.keyUp(e),
      blur: () => { this.hide(false); this.commitKeys(); },
    };
    for (const [name, handler] of Object.entries(events)) this.node.addEventListener(name, handler, options);
    this.node.addEventListener("wheel", (e) => this.wheel(e), { signal, passive: false });
    this.node.addEventListener("dragstart", (e) => e.preventDefault(), options);
  }

  // What is shown ---------------------------------------------------------------------------------------------

  /** Show an image: {key, url, size, label, place}; a new key starts at the whole image. `url` null: no image. */
  setImage({ key, url, size, label }) {
    if (key !== this.key) {
      this.key = key;
      this.zoom = { ...WHOLE };
      this.region = null;
      this.selected = null;
      this.cancel();
      this.dropSharp();
    }
    this.size = url ? size : null;
    this.image.hidden = !url;
    if (url && this.image.src !== url) this.image.src = url;
    this.empty.hidden = !!url;
    set(this.node, { "aria-label": label });
    this.draw();
  }

  /** The text in place of an image. */
  setEmpty(text, isError) {
    this.empty.textContent = text;
    this.empty.classList.toggle("vlmx-broken", !!isError);
  }

  /** Show a sharper cut of the image, which covers `box`. */
  setSharp(key, url, box) {
    if (key !== this.key || this.zoom.z === 1) return URL.revokeObjectURL(url);
    this.dropSharp();
    this.sharpUrl = url;
    this.sharpBox = box;
    this.sharp.src = url;
    this.sharp.hidden = false;
    this.draw();
  }

  dropSharp() {
    if (this.sharpUrl) URL.revokeObjectURL(this.sharpUrl);
    this.sharpUrl = this.sharpBox = null;
    this.sharp.hidden = true;
    this.sharp.removeAttribute("src");
  }

  setItems(items, compared) {
    this.items = numbered(items, compared);
    this.styles = phraseStyles(items);
    if (!items.some((item) => item.id === this.selected)) this.selected = null;
    this.draw();
  }

  setRegion(box) {
    this.region = box;
    this.draw();
  }

  /** Mark boxes: `hot` is a set of ids (empty: none), `selected` an id or null. */
  mark(hot, selected) {
    this.hot = hot;
    const moved = selected !== this.selected;
    this.selected = selected;
    if (moved) this.draw();
    else this.paint();
  }

  get view() {
    const box = this.node.getBoundingClientRect();
    return { w: box.width, h: box.height };
  }

  get rect() {
    return placeImage(this.size, this.view, this.zoom);
  }

  setZoom(zoom) {
    if (!this.size) return;
    this.zoom = { ...zoom };
    if (this.zoom.z === 1) this.dropSharp();
    this.draw();
    clearTimeout(this.sharpening);
    this.sharpening = setTimeout(() => this.askSharp(), 200);
  }

  zoomCentre(factor) {
    const { w, h: height } = this.view;
    if (this.size) this.setZoom(zoomAt(this.zoom, factor, [w / 2, height / 2], this.size, this.view));
  }

  // A preview is enough until one of its pixels is larger than one of the screen's.
  askSharp() {
    if (!this.size || !this.node.isConnected) return;
    const ratio = window.devicePixelRatio || 1;
    const box = visibleBox(this.rect, this.view);
    const wanted = this.rect.w * ratio;
    if (this.zoom.z > 1 && box && wanted > this.image.naturalWidth * 1.05 && this.image.naturalWidth < this.size[0]) {
      this.on.sharpen(box, Math.ceil(Math.max(this.view.w, this.view.h) * ratio));
    }
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.drawNow());
  }

  drawNow() {
    const view = this.view;
    if (!this.size) return this.overlay.replaceChildren();
    if (!view.w || !view.h) return null; // not laid out (a theme is being changed, a tab is behind): keep the drawing
    const rect = this.rect;
    place(this.image, rect);
    if (this.sharpBox) place(this.sharp, toScreen(this.sharpBox, rect));
    const drawn = this.items.map((item) => ({ ...item, rect: this.screenOf(item, rect) }));
    const order = [...drawn].sort((a, b) => area(b.bbox) - area(a.bbox));
    this.overlay.replaceChildren(
      ...order.map((item) => this.boxNode(item)),
      ...this.labels(drawn, rect, view).map((label) => this.labelNode(label, drawn)),
      ...this.handles(drawn), ...this.drafts(rect));
    this.paint();
  }

  screenOf(item, rect) {
    const edited = this.gesture?.id === item.id && this.gesture.box;
    const keyed = this.keyed?.id === item.id && this.keyed.box;
    return toScreen(edited || keyed || item.bbox, rect);
  }

  boxNode(item) {
    const style = this.styles.get(item.phrase);
    const shape = { x: item.rect.x, y: item.rect.y, width: Math.max(0, item.rect.w), height: Math.max(0, item.rect.h) };
    return s("g", { class: "vlmx-box", "data-id": item.id, "data-dashed": style.dashed, "data-side": item.letter || null },
      s("rect", { ...shape, class: "vlmx-casing" }),
      s("rect", { ...shape, class: "vlmx-edge", stroke: style.colour }));
  }

  labels(drawn, rect, view) {
    const x = Math.max(0, rect.x);
    const y = Math.max(0, rect.y);
    const frame = { x, y, w: Math.min(view.w, rect.x + rect.w) - x, h: Math.min(view.h, rect.y + rect.h) - y };
    const seen = drawn.filter(({ rect: r }) => r.x < frame.x + frame.w && r.y < frame.y + frame.h && r.x + r.w > frame.x && r.y + r.h > frame.y);
    const cut = (r) => ({ x: Math.max(r.x, frame.x), y: Math.max(r.y, frame.y),
      w: Math.min(r.x + r.w, frame.x + frame.w) - Math.max(r.x, frame.x), h: Math.min(r.y + r.h, frame.y + frame.h) - Math.max(r.y, frame.y) });
    this.pen.font = "600 12px system-ui, sans-serif";
    const measure = (text) => [Math.ceil(this.pen.measureText(text).width) + 10, 18];
    return layOutLabels(seen.map((item) => ({ ...item, rect: cut(item.rect) })), frame, measure);
  }

  labelNode(label, drawn) {
    const item = drawn.find((one) => one.id === label.id);
    const style = this.styles.get(item.phrase);
    const text = s("text", { x: label.x + label.w / 2, y: label.y + 13, fill: style.ink, "text-anchor": "middle" });
    text.textContent = label.text;
    return s("g", { class: "vlmx-label", "data-id": label.id },
      s("rect", { x: label.x, y: label.y, width: label.w, height: label.h, fill: style.colour, rx: 2 }), text);
  }

  handles(drawn) {
    const item = drawn.find((one) => one.id === this.selected);
    if (!item) return [];
    const { x, y, w, h: height } = item.rect;
    const points = [[x, y], [x + w, y], [x, y + height], [x + w, y + height], [x + w / 2, y], [x + w / 2, y + height], [x, y + height / 2], [x + w, y + height / 2]];
    return points.map(([px, py]) => s("rect", { class: "vlmx-handle", x: px - 4, y: py - 4, width: 8, height: 8, rx: 1.5 }));
  }

  drafts(rect) {
    const box = this.gesture?.mode === "region" ? this.gesture.box : this.cornerBox() || this.region;
    if (!box) return [];
    const r = toScreen(box, rect);
    const shape = { x: r.x, y: r.y, width: r.w, height: r.h };
    return [s("rect", { ...shape, class: "vlmx-region-casing" }), s("rect", { ...shape, class: "vlmx-region" })];
  }

  cornerBox() {
    return this.corners?.first && this.corners.now ? boxBetween(this.corners.first, this.corners.now) : null;
  }

  paint() {
    for (const node of this.overlay.querySelectorAll("[data-id]")) {
      const id = Number(node.dataset.id);
      node.classList.toggle("is-hot", this.hot.has(id));
      node.classList.toggle("is-dim", this.hot.size > 0 && !this.hot.has(id) && id !== this.selected);
      node.classList.toggle("is-selected", id === this.selected);
    }
  }

  hide(hidden) {
    this.node.classList.toggle("is-bare", hidden);
  }

  // Pointer ---------------------------------------------------------------------------------------------------

  at(event) {
    const box = this.node.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  down(event) {
    if (!this.size || (event.button !== 0 && event.button !== 1)) return;
    const point = this.at(event);
    this.commitKeys();
    const pan = event.button === 1 || this.space || (event.shiftKey && this.zoom.z > 1);
    const grip = pan || this.corners ? null : this.gripAt(point);
    this.gesture = { start: point, last: point, moved: false, mode: pan ? "pan" : grip ? "edit" : "region", ...grip };
    if (event.button === 1) event.preventDefault();
    this.node.setPointerCapture(event.pointerId);
  }

  gripAt(point) {
    const item = this.items.find((one) => one.id === this.selected);
    const handle = item && handleAt(toScreen(item.bbox, this.rect), point);
    return handle ? { id: item.id, handle, from: item.bbox } : null;
  }

  move(event) {
    if (!this.size) return;
    const point = this.at(event);
    const gesture = this.gesture;
    if (!gesture) return this.hover(point);
    gesture.moved ||= Math.hypot(point[0] - gesture.start[0], point[1] - gesture.start[1]) > DRAG_PIXELS;
    if (!gesture.moved) return;
    if (gesture.mode === "pan") this.setZoom(panBy(this.zoom, point[0] - gesture.last[0], point[1] - gesture.last[1], this.size, this.view));
    else if (gesture.mode === "edit") gesture.box = this.edited(gesture, point);
    else gesture.box = boxBetween(toImage(gesture.start, this.rect), toImage(point, this.rect));
    gesture.last = point;
    this.draw();
  }

  edited({ from, handle, start }, point) {
    const dx = (point[0] - start[0]) / this.rect.w;
    const dy = (point[1] - start[1]) / this.rect.h;
    return handle === "move" ? moveBox(from, dx, dy) : resizeBox(from, handle, dx, dy);
  }

  hover(point) {
    if (this.corners) {
      this.corners.now = toImage(point, this.rect);
      if (this.corners.first) this.draw();
      return;
    }
    const [id] = boxesAt(this.items, this.exact(point));
    const grip = this.gripAt(point);
    this.node.style.cursor = grip ? cursorOf(grip.handle) : "";
    this.on.hover(id ?? null);
  }

  // Not clipped: beside the image there is no box.
  exact([x, y]) {
    const rect = this.rect;
    return [(x - rect.x) / rect.w, (y - rect.y) / rect.h];
  }

  up(event) {
    const gesture = this.gesture;
    if (!gesture) return;
    this.gesture = null;
    if (!gesture.moved) this.click(this.at(event));
    else if (gesture.mode === "edit") this.on.change(gesture.id, gesture.box);
    else if (gesture.mode === "region") this.finishRegion(gesture.box);
    this.draw();
  }

  click(point) {
    if (this.corners) return this.corner(toImage(point, this.rect));
    this.on.select(nextAt(boxesAt(this.items, this.exact(point)), this.selected));
  }

  corner(point) {
    if (!this.corners.first) this.corners = { first: point, now: point };
    else {
      const box = boxBetween(this.corners.first, point);
      this.disarm();
      this.finishRegion(box);
    }
  }

  finishRegion(box) {
    const { w, h: height } = toScreen(box, this.rect);
    if (w < SMALLEST_REGION || height < SMALLEST_REGION) return this.draw();
    this.disarm();
    this.setRegion(box);
    this.on.region(box);
  }

  armCorners() {
    if (this.corners) return this.disarm();
    this.corners = { first: null, now: null };
    set(this.regionButton, { "aria-pressed": "true" });
    this.node.classList.add("is-drawing");
    this.node.focus();
  }

  disarm() {
    this.corners = null;
    set(this.regionButton, { "aria-pressed": "false" });
    this.node.classList.remove("is-drawing");
    this.draw();
  }

  /** Forget the gesture under way; true if there was one. */
  cancel() {
    const had = !!(this.gesture?.moved || this.corners);
    this.gesture = null;
    if (this.corners) this.disarm();
    this.draw();
    return had;
  }

  wheel(event) {
    if (!event.ctrlKey || !this.size) return; // the plain wheel scrolls the notebook
    event.preventDefault();
    this.setZoom(zoomAt(this.zoom, Math.exp(-event.deltaY * 0.004), this.at(event), this.size, this.view));
  }

  // Keyboard --------------------------------------------------------------------------------------------------

  keyDown(event) {
    if (event.ctrlKey || event.metaKey) {
      if (event.key.toLowerCase() === "z" && !event.shiftKey) this.take(event, () => this.on.undo());
      return;
    }
    const action = ARROWS[event.key] ? () => this.arrow(event) : this.keys()[event.key];
    if (action && (event.key !== "Escape" || this.hasToLeave())) this.take(event, action);
  }

  take(event, action) {
    event.preventDefault();
    event.stopPropagation();
    action();
  }

  keys() {
    const zoomIn = () => this.zoomCentre(1.25);
    const hide = () => this.hide(true);
    return {
      "+": zoomIn, "=": zoomIn, "-": () => this.zoomCentre(0.8), 0: () => this.setZoom(WHOLE),
      h: hide, H: hide, r: () => this.armCorners(), R: () => this.armCorners(), " ": () => { this.space = true; },
      PageUp: () => this.on.page(-1), PageDown: () => this.on.page(1), Home: () => this.on.page("first"), End: () => this.on.page("last"),
      Delete: () => this.selected !== null && this.on.remove(this.selected),
      Backspace: () => this.selected !== null && this.on.remove(this.selected),
      F2: () => this.selected !== null && this.on.rename(this.selected),
      Enter: () => this.selected !== null && this.on.rename(this.selected),
      Escape: () => this.back(),
    };
  }

  hasToLeave() {
    return !!(this.gesture?.moved || this.corners || this.selected !== null || this.region);
  }

  back() {
    if (this.cancel()) return;
    if (this.selected !== null) return this.on.select(null);
    this.setRegion(null);
    this.on.region(null);
  }

  arrow(event) {
    const [dx, dy] = ARROWS[event.key];
    const item = this.items.find((one) => one.id === this.selected);
    if (item) return this.nudge(item, dx, dy, event);
    if (this.zoom.z > 1) return this.setZoom(panBy(this.zoom, -dx * 40, -dy * 40, this.size, this.view));
    if (dx) this.on.page(dx);
  }

  // One pixel of the image, but never less than one of the screen: else nothing would be seen to move.
  nudge(item, dx, dy, event) {
    const pixel = Math.max(1, 1 / (fitScale(this.size, this.view) * this.zoom.z)) * (event.shiftKey ? 10 : 1);
    const box = this.keyed?.id === item.id ? this.keyed.box : item.bbox;
    const [x, y] = [dx * pixel / this.size[0], dy * pixel / this.size[1]];
    this.keyed = { id: item.id, box: event.altKey ? resizeBox(box, "se", x, y) : moveBox(box, x, y) };
    this.draw();
  }

  keyUp(event) {
    if (event.key.toLowerCase() === "h") this.hide(false);
    if (event.key === " ") this.space = false;
    if (ARROWS[event.key]) this.commitKeys();
  }

  // A run of arrow keys is one gesture, and one change in Python.
  commitKeys() {
    const keyed = this.keyed;
    this.keyed = null;
    if (keyed) this.on.change(keyed.id, keyed.box);
  }

  close() {
    cancelAnimationFrame(this.frame);
    clearTimeout(this.sharpening);
    this.dropSharp();
  }
}

function place(node, rect) {
  Object.assign(node.style, { left: `${rect.x}px`, top: `${rect.y}px`, width: `${rect.w}px`, height: `${rect.h}px` });
}

function cursorOf(handle) {
  return handle === "move" ? "move" : `${{ nw: "nwse", se: "nwse", ne: "nesw", sw: "nesw", n: "ns", s: "ns", e: "ew", w: "ew" }[handle]}-resize`;
}
