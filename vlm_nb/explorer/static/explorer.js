// The widget: one App per view. Traits (ui_*) come from Python, messages with a ticket go there; each is acknowledged.

import { h, imageUrl, problemNodes, say } from "./dom.js";
import { Stage } from "./stage.js";
import { BoxList } from "./boxes.js";
import { AnswerPane } from "./answer.js";
import { Composer } from "./composer.js";
import { ImageBar } from "./images.js";
import { ModelBar } from "./models.js";
import { Tools } from "./tools.js";

const BUSY_AFTER_MS = 1500;
const PART_BYTES = 2_000_000;
const KEPT_PREVIEWS = 6;
const LOST = ["restarting", "autorestarting", "dead"];
const LARGER_AFTER_MS = 120;
const LOOK_AGAIN_MS = 3000;

class App {
  constructor(model, el) {
    this.model = model;
    this.el = el;
    this.abort = new AbortController();
    this.previews = new Map();
    this.waiting = new Map();
    this.sent = 0;
    this.hovered = null;
    this.selected = null;
    this.build();
    this.bind();
    this.refresh();
    this.look();
  }

  build() {
    const { signal } = this.abort;
    const boxes = {
      hover: (id) => this.hover(id), select: (id) => this.select(id), remove: (id) => this.edit({ op: "delete", id }),
      undo: () => this.edit({ op: "undo" }), rename: (id, phrase) => (phrase ? this.edit({ op: "rename", id, phrase }) : this.list.edit(id)),
    };
    this.stage = new Stage({ ...boxes,
      region: (box) => this.setRegion(box), change: (id, bbox) => this.edit({ op: "change", id, bbox }),
      page: (step) => this.page(step), sharpen: (bbox, side) => this.post({ type: "crop", index: this.shownIndex, bbox, side }),
    }, signal);
    this.list = new BoxList(boxes, signal);
    this.composer = new Composer({
      send: (question) => this.send(question), stop: () => this.stop(),
      dropRegion: () => this.setRegion(null), keepRegion: () => this.keepRegion(),
    }, signal);
    this.tools = new Tools({
      exported: (format) => this.post({ type: "export", format }), copy: () => this.answer.text, recall: (number) => this.post({ type: "recall", number }),
    }, signal);
    this.answer = new AnswerPane({ hover: (phrase) => this.hoverPhrase(phrase) }, this.tools.bar);
    this.models = new ModelBar({
      load: (what) => this.post({ type: "load", ...what }), cancel: () => this.post({ type: "cancel_load" }),
      unload: () => this.post({ type: "unload" }), ask: (server) => this.post({ type: "server", server }),
    }, signal);
    this.images = new ImageBar({
      pick: (text) => this.post({ type: "pick", text }), files: (files) => this.upload(files), edited: () => this.setNotice({}),
      go: (index) => this.go(index), wantThumbs: (indices) => this.post({ type: "thumbs", indices }),
    }, signal);
    this.notice = h("div", { class: "vlmx-problem vlmx-notice", role: "alert" });
    this.gone = h("p", { class: "vlmx-gone", role: "alert" }, "Disconnected from the kernel: run the cell again.");
    this.root = h("div", { class: "vlmx" }, this.gone, this.models.root, this.images.root, this.notice,
      h("div", { class: "vlmx-main" },
        h("div", { class: "vlmx-look" }, this.stage.root),
        h("div", { class: "vlmx-side" }, this.list.root),
        h("div", { class: "vlmx-talk" }, this.composer.root, this.answer.root,
          h("div", { class: "vlmx-foot" }, this.tools.menu, this.answer.status))));
    this.el.replaceChildren(this.root);
  }

  bind() {
    const { signal } = this.abort;
    this.listeners = {
      "change:ui_models": () => this.setModels(),
      "change:ui_loading": () => this.models.setLoading(this.get("loading")),
      "change:ui_album": () => this.setAlbum(),
      "change:ui_picture": () => this.setPicture(),
      "change:ui_answer": () => this.setAnswer(),
      "change:ui_rival": () => this.setRival(),
      "change:ui_boxes": () => this.setBoxes(),
      "change:ui_history": () => this.tools.setTurns(this.get("history")),
      "change:ui_notice": () => this.setNotice(this.get("notice")),
      "msg:custom": (content, buffers) => this.receive(content, buffers),
    };
    for (const [name, handler] of Object.entries(this.listeners)) this.model.on(name, handler);
    this.watchKernel();
    this.root.addEventListener("keydown", (e) => this.escape(e), { signal });
    for (const part of [this.models.root, this.composer.root]) part.addEventListener("focusin", () => this.look(), { signal });
    for (const name of ["dragover", "dragenter"]) this.root.addEventListener(name, (e) => this.dragged(e), { signal });
    this.root.addEventListener("dragleave", (e) => this.root.contains(e.relatedTarget) || this.root.classList.remove("is-target"), { signal });
    this.root.addEventListener("drop", (e) => this.dropped(e), { signal });
    this.root.addEventListener("paste", (e) => this.pasted(e), { signal });
  }

  // Where the front end shows its kernel (Lab, Notebook); elsewhere its class jupyter-widgets-disconnected tells.
  watchKernel() {
    const changed = this.model.widget_manager?.kernel?.statusChanged;
    if (!changed?.connect) return;
    const listener = (_, status) => LOST.includes(status) && this.setGone();
    changed.connect(listener);
    this.abort.signal.addEventListener("abort", () => changed.disconnect(listener));
  }

  setGone() {
    this.root.classList.add("is-gone");
    this.lost = true;
    for (const timer of this.waiting.values()) clearTimeout(timer);
    this.composer.setRunning(false);
    say(this.answer.status, "Disconnected");
  }

  get(name) {
    return this.model.get(`ui_${name}`);
  }

  // Models come and go in other cells too: who turns to the model bar or the prompt sees what is loaded now.
  look() {
    if (performance.now() - (this.lookedAt ?? -Infinity) < LOOK_AGAIN_MS) return;
    this.lookedAt = performance.now();
    this.post({ type: "hello" });
  }

  setModels() {
    this.models.setModels(this.get("models"));
    this.composer.setRivals(this.get("models").rivals || []);
  }

  refresh() {
    this.setModels();
    this.models.setLoading(this.get("loading"));
    this.setAlbum();
    this.setPicture();
    this.setBoxes();
    this.setAnswer();
    this.tools.setTurns(this.get("history"));
  }

  // To Python -------------------------------------------------------------------------------------------------

  /** Send a message; one that is not acknowledged in time means that the kernel is busy. */
  post(content, buffers = []) {
    if (this.lost) return null;
    const ticket = `${Date.now().toString(36)}-${(this.sent += 1)}`;
    this.waiting.set(ticket, setTimeout(() => this.setBusy(true), BUSY_AFTER_MS));
    this.model.send({ ...content, ticket }, undefined, buffers);
    return ticket;
  }

  acknowledged(ticket) {
    clearTimeout(this.waiting.get(ticket));
    if (this.waiting.delete(ticket) && !this.waiting.size) this.setBusy(false);
    if (ticket === this.lastGo) {
      this.lastGo = null;
      this.setAlbum();
    }
  }

  setBusy(busy) {
    if (busy === !!this.busy) return;
    this.busy = busy;
    this.setAnswer();
  }

  receive(content, buffers) {
    const { type, index } = content;
    if (type === "ack") this.acknowledged(content.ticket);
    else if (type === "thumb") this.images.setThumb(index, buffers[0], content.error);
    else if (type === "large") this.keepPreview(index, buffers[0], true);
    else if (type === "crop") this.stage.setSharp(this.keyOf(index), imageUrl(buffers[0]), content.bbox);
    else if (type === "file") save(content.name, content.mime, buffers[0]);
  }

  // Questions -------------------------------------------------------------------------------------------------

  send(question) {
    if (this.lost) return this.composer.setRunning(false);
    this.setNotice({});
    this.post({ type: "ask", ...question, region: this.stage.region });
    say(this.answer.status, "Generating…");
    this.asked = this.get("answer").number;
  }

  stop() {
    this.post({ type: "stop" });
  }

  escape(event) {
    if (event.key !== "Escape" || !this.composer.running || event.defaultPrevented) return;
    event.preventDefault();
    this.stop();
  }

  setAnswer() {
    const answer = this.get("answer");
    const rival = this.get("rival");
    const open = [answer, rival].some((one) => one.status === "waiting" || one.status === "running");
    const pending = this.asked === answer.number; // sent, and not yet heard of
    if (answer.number !== this.asked) this.asked = null;
    this.composer.setRunning(open || pending);
    if (!pending) this.answer.show(answer, rival, this.items);
    if (this.busy) say(this.answer.status, "The kernel is busy with a cell: this waits until it has finished.");
  }

  // Whether two are compared letters the boxes; its growing text leaves the list alone (a name may be being edited).
  setRival() {
    const { number } = this.get("rival");
    if (number === this.rivalNumber) return this.setAnswer();
    this.rivalNumber = number;
    this.setBoxes();
  }

  setNotice(notice) {
    this.notice.replaceChildren(...(notice?.message ? problemNodes(notice) : []));
    if (!notice?.message) return;
    if (this.asked !== null) { // the question was refused
      this.asked = null;
      this.setAnswer();
    }
    const close = h("button", { type: "button", class: "vlmx-chip-button", "aria-label": "Dismiss" }, "×");
    close.addEventListener("click", () => this.notice.replaceChildren());
    this.notice.append(close);
  }

  // Boxes -----------------------------------------------------------------------------------------------------

  setBoxes() {
    const boxes = this.get("boxes");
    this.boxes = boxes.image === this.shownIndex ? boxes.items || [] : [];
    this.items = boxes.items || [];
    const compared = boxes.turn > 0 && this.get("rival").number === boxes.turn;
    this.stage.setItems(this.boxes, compared);
    this.list.setItems(this.boxes, this.boxes.length || !this.album?.count ? "" : "No boxes yet. Choose Find, or draw a region on the image.", compared);
    if (!this.boxes.some((item) => item.id === this.selected)) this.selected = null;
    this.mark();
    this.setAnswer();
  }

  hover(id) {
    if (id === this.hovered) return;
    this.hovered = id;
    this.mark();
  }

  hoverPhrase(phrase) {
    this.phrase = phrase;
    this.mark();
  }

  select(id) {
    this.selected = id;
    this.hovered = document.activeElement === this.list.list ? id : this.hovered;
    this.mark();
  }

  // A hovered box marks its phrase and the other model's same box, a hovered phrase all its boxes.
  mark() {
    const item = this.boxes.find((one) => one.id === this.hovered);
    const hot = new Set(this.phrase ? this.boxes.filter((one) => one.phrase === this.phrase).map((one) => one.id) : item ? [item.id, item.match || item.id] : []);
    this.stage.mark(hot, this.selected);
    this.list.mark(hot, this.selected);
    this.answer.mark(new Set(this.boxes.filter((one) => hot.has(one.id)).map((one) => one.phrase)));
  }

  edit(change) {
    this.post({ type: "edit", ...change });
  }

  setRegion(box) {
    this.stage.setRegion(box);
    this.composer.setRegion(box);
  }

  keepRegion() {
    this.edit({ op: "add", bbox: this.stage.region, phrase: this.composer.prompt.value.trim().slice(0, 80) || "object" });
    this.setRegion(null);
    this.stage.node.focus();
  }

  // Images ----------------------------------------------------------------------------------------------------

  get shownIndex() {
    return this.album?.index ?? 0;
  }

  keyOf(index) {
    return `${index}`;
  }

  // While a key is held the kernel's word is about an earlier image: the place here counts until it has caught up.
  setAlbum() {
    const album = this.get("album");
    this.album = this.going || this.lastGo ? { ...album, index: this.shownIndex } : album;
    this.images.setAlbum(this.album);
    this.showImage();
    this.setBoxes();
  }

  page(step) {
    if (typeof step === "number") this.images.step(step);
    else this.images.go(step === "first" ? 0 : this.album.count - 1);
  }

  go(index) {
    this.album = { ...this.album, index };
    this.showImage();
    this.setBoxes();
    clearTimeout(this.going);
    this.going = setTimeout(() => {
      this.going = null;
      this.lastGo = this.post({ type: "go", index });
    }, 30);
  }

  setPicture() {
    const picture = this.get("picture");
    if (!picture || picture.index === undefined) return;
    const known = this.previews.get(picture.index);
    this.previews.set(picture.index, { ...known, error: picture.error, size: picture.size, label: picture.label });
    if (picture.error || known?.large) this.showImage();
    else this.keepPreview(picture.index, picture.jpeg, false);
  }

  keepPreview(index, data, large) {
    const old = this.previews.get(index) || {};
    if (!old.size || (old.large && !large)) return;
    const url = imageUrl(data);
    const picture = { ...old, url, large };
    const decoded = new Image();
    decoded.src = url;
    decoded.decode().catch(() => null).then(() => {
      if (this.abort.signal.aborted) return URL.revokeObjectURL(url);
      this.previews.delete(index);
      this.previews.set(index, picture);
      this.showImage();
      if (old.url) URL.revokeObjectURL(old.url);
      this.dropOld();
    });
  }

  dropOld() {
    for (const [index, picture] of this.previews) {
      if (this.previews.size <= KEPT_PREVIEWS) return;
      if (index === this.shownIndex) continue;
      if (picture.url) URL.revokeObjectURL(picture.url);
      this.previews.delete(index);
    }
  }

  showImage() {
    const { count } = this.album || {};
    const index = this.shownIndex;
    const picture = this.previews.get(index);
    const size = picture?.size;
    const about = picture ? `Image ${index + 1} of ${count}: ${picture.label}${size ? `, ${size[0]} by ${size[1]} pixels` : ""}` : "Image";
    this.stage.setImage({ key: this.keyOf(index), url: picture?.error ? null : picture?.url || null, size, label: count ? about : "Image: none yet" });
    const empty = picture?.error || (count ? "Loading the image…" : "Drop or paste an image here, or add one above.");
    this.stage.setEmpty(empty, !!picture?.error);
    clearTimeout(this.larger);
    if (picture?.url && !picture.large && this.wantsLarger(size)) this.larger = setTimeout(() => this.post({ type: "large", index }), LARGER_AFTER_MS);
  }

  wantsLarger(size) {
    return Math.max(...size) > 640;
  }

  async upload(files) {
    this.setNotice({});
    for (const file of files) {
      if (file.type && !file.type.startsWith("image/")) {
        this.setNotice({ message: `${file.name} is not an image (${file.type}).` });
        continue;
      }
      const data = await file.arrayBuffer();
      const parts = Math.max(1, Math.ceil(data.byteLength / PART_BYTES));
      const key = `${Date.now()}-${Math.random()}`;
      for (let part = 0; part < parts; part += 1) {
        const piece = data.slice(part * PART_BYTES, (part + 1) * PART_BYTES);
        this.post({ type: "upload", key, name: file.name || "pasted image", part, parts }, [piece]);
      }
    }
  }

  dragged(event) {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    event.stopPropagation();
    this.root.classList.add("is-target");
  }

  dropped(event) {
    this.root.classList.remove("is-target");
    const files = [...event.dataTransfer.files];
    if (!files.length) return;
    event.preventDefault();
    event.stopPropagation();
    this.upload(files);
  }

  pasted(event) {
    const files = [...(event.clipboardData?.files || [])];
    if (!files.length) return; // text goes where the caret is
    event.preventDefault();
    event.stopPropagation();
    this.upload(files);
  }

  close() {
    this.abort.abort();
    for (const [name, handler] of Object.entries(this.listeners)) this.model.off(name, handler);
    for (const timer of this.waiting.values()) clearTimeout(timer);
    for (const { url } of this.previews.values()) if (url) URL.revokeObjectURL(url);
    for (const timer of [this.larger, this.going]) clearTimeout(timer);
    this.stage.close();
    this.images.close();
  }
}

function save(name, mime, data) {
  const url = URL.createObjectURL(new Blob([data], { type: mime }));
  const link = h("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

export default {
  render({ model, el }) {
    const app = new App(model, el);
    return () => app.close();
  },
};
