// The page of RetrievalPanel: a search field, a picture to search by, and a grid of hits. Messages: see retrieval.py.
// Captions and keys go into the page as textContent only.

const viewOf = (bytes) => new DataView(bytes.buffer ?? bytes, bytes.byteOffset ?? 0, bytes.byteLength);

class Explorer {
  constructor(model, el) {
    this.model = model;
    this.info = model.get("_info");
    this.picture = null; // {bytes, url}
    this.urls = [];
    this.listeners = [];
    this.build(el);
    this.on("msg:custom", (content, buffers) => this.receive(content, buffers));
    this.on("change:theme", () => this.setTheme());
    this.setTheme();
    this.say(this.info.note);
    this.model.send({ type: "load" });
  }

  on(event, callback) {
    this.model.on(event, callback);
    this.listeners.push([event, callback]);
  }

  build(el) {
    this.input = make("input", { type: "search", className: "re-text", "aria-label": "text to search for",
      placeholder: "describe a thing and press Enter", maxLength: 2000, autocomplete: "off" });
    this.button = make("button", { type: "submit" }, "Search");
    this.file = make("input", { type: "file", accept: "image/png,image/jpeg,image/webp", className: "re-file",
      "aria-label": "picture to search by" });
    this.chip = make("span", { className: "re-chip", hidden: true });
    this.form = make("form", { className: "re-form" }, this.input, this.button);
    if (this.info.pictures) this.form.append(make("label", { className: "re-upload" }, "Picture …", this.file), this.chip);
    this.status = make("div", { className: "re-status", role: "status", "aria-live": "polite" });
    this.grid = make("ol", { className: "re-grid" });
    this.root = make("div", { className: "clipgs-re", "data-state": "ready" }, this.form, this.status, this.grid);
    for (const element of this.root.querySelectorAll("input, button")) {
      element.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab's keys stay out of ours
    }
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.search();
    });
    this.form.addEventListener("keydown", (event) => event.stopPropagation());
    this.file.addEventListener("change", () => this.choose(this.file.files[0]));
    el.append(this.root);
  }

  setTheme() {
    this.root.dataset.theme = this.model.get("theme");
  }

  say(text, wrong = false) {
    this.status.textContent = text;
    this.root.dataset.state = wrong ? "wrong" : "ready";
    this.button.disabled = false;
  }

  // ---- asking ----------------------------------------------------------------------------------------------------

  search() {
    this.root.dataset.state = "busy";
    this.status.textContent = "Searching …";
    this.button.disabled = true;
    const buffers = this.picture ? [viewOf(this.picture.bytes)] : [];
    this.model.send({ type: "search", text: this.input.value }, undefined, buffers);
  }

  async choose(file) {
    this.file.value = ""; // so that the same file can be chosen again
    if (!file) return;
    const most = this.info.max_bytes;
    if (file.size > most) {
      this.say(`A picture may have at most ${most / 1e6} MB, this one has ${(file.size / 1e6).toFixed(1)}; shrink it.`, true);
      return;
    }
    this.drop();
    this.picture = { bytes: await file.arrayBuffer(), url: URL.createObjectURL(file) };
    const remove = make("button", { type: "button", title: "remove the picture", "aria-label": "remove the picture" }, "✕");
    remove.addEventListener("click", () => this.drop());
    this.chip.replaceChildren(make("img", { src: this.picture.url, alt: "" }), make("span", {}, file.name), remove);
    this.chip.hidden = false;
    this.search();
  }

  drop() {
    if (this.picture) URL.revokeObjectURL(this.picture.url);
    this.picture = null;
    this.chip.hidden = true;
    this.chip.replaceChildren();
  }

  // ---- showing ---------------------------------------------------------------------------------------------------

  receive(content, buffers) {
    if (content.type === "say") this.say(content.text, Boolean(content.wrong));
    if (content.type !== "hits") return;
    this.urls.forEach((url) => URL.revokeObjectURL(url));
    this.urls = content.hits.map((hit, i) => URL.createObjectURL(new Blob([viewOf(buffers[i])], { type: hit.kind })));
    this.grid.replaceChildren(...content.hits.map((hit, i) => this.hit(hit, this.urls[i])));
    this.say(content.note);
  }

  hit(hit, url) {
    const score = hit.score.toFixed(3);
    const inside = [
      make("img", { src: url, alt: "" }),
      make("span", { className: "re-caption" }, hit.caption),
      make("span", { className: "re-score" }, score),
    ];
    if (!this.info.opens) return make("li", { title: hit.caption }, make("div", { className: "re-hit" }, ...inside));
    const label = `${hit.rank}. ${hit.caption}, score ${score}; open`;
    const button = make("button", { type: "button", className: "re-hit", title: hit.caption, "aria-label": label }, ...inside);
    button.setAttribute("data-lm-suppress-shortcuts", "true");
    button.addEventListener("click", () => {
      this.grid.querySelector("[aria-current]")?.removeAttribute("aria-current");
      button.setAttribute("aria-current", "true");
      this.root.dataset.state = "busy";
      this.status.textContent = `Opening ${hit.caption} …`;
      this.model.send({ type: "open", row: hit.row });
    });
    return make("li", {}, button);
  }

  close() {
    this.listeners.forEach(([event, callback]) => this.model.off(event, callback));
    this.urls.forEach((url) => URL.revokeObjectURL(url));
    this.drop();
    this.root.remove();
  }
}

export default () => ({
  initialize({ model }) {
    keepStills(model.widget_manager);
  },
  render({ model, el }) {
    const explorer = new Explorer(model, el);
    return () => explorer.close();
  },
});
