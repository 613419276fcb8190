// The model bar: choose a model of this machine or of a server, load it, see what that costs.

import { field, h, problemNodes, roving, say, set, uid } from "./dom.js";

const SERVER = "server";
const HINTS = { local: "demo, or a Hugging Face name or folder", [SERVER]: "A model of the server" };

/** `on`: load({model, precision, device, server, keep}), cancel(), unload(), ask(server). */
export class ModelBar {
  constructor(on, signal) {
    this.on = on;
    this.build();
    this.update = roving(this.buttons, signal);
    const listen = (node, name, handler) => node.addEventListener(name, handler, { signal });
    const enter = (e) => e.key === "Enter" && !e.isComposing && this.press();
    listen(this.load, "click", () => this.press());
    listen(this.unload, "click", () => this.on.unload());
    listen(this.model, "keydown", enter);
    listen(this.model, "input", () => this.follow());
    listen(this.device, "change", () => this.place());
    listen(this.server, "change", () => this.look());
    this.update();
  }

  build() {
    const lists = [uid("models"), uid("servers")];
    const text = (id, list, placeholder) => h("input", { type: "text", list, id, placeholder, autocomplete: "off", spellcheck: "false" });
    this.model = text(uid("model"), lists[0], HINTS.local);
    this.server = text(uid("server"), lists[1], "its address (…/v1), or a name");
    this.choices = h("datalist", { id: lists[0] });
    this.addresses = h("datalist", { id: lists[1] });
    this.precision = h("select", { id: uid("precision") });
    this.device = h("select", { id: uid("device") });
    this.load = h("button", { type: "button", class: "vlmx-button vlmx-primary" }, "Load");
    this.unload = h("button", { type: "button", class: "vlmx-button", hidden: true }, "Unload");
    this.keep = h("input", { type: "checkbox", id: uid("keep") });
    this.keepField = h("div", { class: "vlmx-keep", hidden: true, title: "Load beside the models that are loaded, to compare them" },
      this.keep, h("label", { for: this.keep.id }, "Keep loaded"));
    this.buttons = h("div", { class: "vlmx-toolbar", role: "group", "aria-label": "Loading" }, this.load, this.unload, this.keepField);
    this.bar = h("div", { class: "vlmx-progress", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100", hidden: true }, h("div", { class: "vlmx-progress-fill" }));
    this.line = h("p", { class: "vlmx-line" });
    this.problem = h("div", { class: "vlmx-problem", role: "alert" });
    this.fields = [field("Quantisation", this.precision), field("Server", this.server)];
    this.fields[1].hidden = true;
    this.root = h("div", { class: "vlmx-models" },
      h("div", { class: "vlmx-fields" },
        field("Model", this.model, "vlmx-wide"), this.choices, this.addresses, this.fields, field("Device", this.device), this.buttons),
      h("div", { class: "vlmx-under" }, this.bar, this.line), this.problem);
  }

  get remote() {
    return this.device.value === SERVER;
  }

  press() {
    if (this.busy) return this.on.cancel();
    this.on.load({
      model: this.model.value.trim(), precision: this.precision.value, device: this.device.value,
      server: this.server.value.trim(), keep: this.keep.checked,
    });
  }

  // A server's model that is chosen from the list brings its server along.
  follow() {
    const named = (this.models?.choices || []).filter(({ name }) => name === this.model.value);
    if (this.remote || !named.length || !named.every(({ server }) => server)) return;
    this.device.value = SERVER;
    this.server.value = named[0].server;
    this.place();
  }

  // A server has no quantisation to choose: its address takes that place.
  place() {
    this.fields[0].hidden = this.remote;
    this.fields[1].hidden = !this.remote;
    this.model.placeholder = this.remote ? HINTS[SERVER] : HINTS.local;
    if (this.remote) this.look();
    this.suggest();
    this.describe();
  }

  look() {
    const address = this.server.value.trim();
    if (address && !this.offered(address).length) this.on.ask(address);
  }

  offered(address) {
    return (this.models?.choices || []).filter(({ server }) => server === address);
  }

  suggest() {
    const all = this.models?.choices || [];
    const shown = this.remote ? this.offered(this.server.value.trim()) : all;
    this.choices.replaceChildren(...shown.map(({ name, hint }) => h("option", { value: name }, hint)));
  }

  setModels(models) {
    const first = !this.models;
    this.models = models;
    options(this.precision, models.precisions || []);
    options(this.device, models.devices || []);
    this.addresses.replaceChildren(...(models.servers || []).map(({ name, hint }) => h("option", { value: name }, hint)));
    this.setCurrent(models.current);
    this.unload.hidden = this.keepField.hidden = !models.current;
    if (first && models.server) {
      this.device.value = SERVER;
      this.server.value = models.server;
      this.place();
    }
    this.suggest();
    this.describe();
    this.update();
  }

  // The field names the model that answers, unless its user is just writing there.
  setCurrent(current) {
    const changed = current && current.name !== this.current?.name && ![current.name, current.model].includes(this.model.value);
    if (current && (!this.model.value || (changed && document.activeElement !== this.model))) this.model.value = current.model;
    this.current = current;
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
    const text = { loading: `Loading ${state.name}: ${state.text}${how}`, unloading: `Unloading ${state.name}` }[state.status];
    say(this.line, text || [state.note, this.served(), this.idle()].filter(Boolean).join(" "));
  }

  idle() {
    const model = this.current;
    if (!model) return "No model is loaded; the first question loads the small demo model.";
    const beside = this.models.rivals?.length ? ` · beside ${this.models.rivals.map(({ label }) => label).join(", ")}` : "";
    return `${model.name} · ${model.facts}${model.is_demo ? " · demo: drawn scenes only" : ""}${beside}`;
  }

  served() {
    const names = this.remote ? this.offered(this.server.value.trim()).map(({ name }) => name) : [];
    if (!names.length) return "";
    return `The server offers ${names.slice(0, 5).join(", ")}${names.length > 5 ? ` and ${names.length - 5} more` : ""}.`;
  }
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
