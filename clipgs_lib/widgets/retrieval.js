// The page of RetrievalExplorer. Messages: see retrieval.py.

const SILENCE_MS = 8000;
const SILENT = "The kernel does not answer: it is busy, or was restarted. Wait, interrupt it to stop, or run this cell again.";
const SIDE = 448; // pixels to which pictures are shrunk here

class Explorer extends Panel {
  constructor(model, el) {
    super(model, el);
    Object.assign(this, { state: { parts: [] }, hits: [], near: [], seq: 0, asked: 0, opening: 0, waiting: false, pending: null });
    this.map = new EmbeddingMap(this.plane, {
      open: (row) => this.open(row),
      lasso: (rows) => this.post({ type: "lasso", rows }),
      hover: (row) => this.point(row),
    });
    this.on("comm_live_update", () => this.post({ type: "load" }));
    this.showParts();
    this.post({ type: "load" });
  }

  close() {
    clearTimeout(this.timer);
    this.view?.remove();
    this.map.close();
    this.forget(this.near);
    super.close();
  }

  // ---- page ------------------------------------------------------------------------------------------------------

  build() {
    this.rows = make("div", { className: "re-parts" });
    this.file = make("input", { type: "file", accept: "image/*", className: "re-file", "aria-label": "picture to search by" });
    this.file.addEventListener("change", () => this.choose(this.file.files[0]));
    const choice = (label, options) => make("select", { "aria-label": label },
      ...options.map(([value, text]) => make("option", { value }, text)));
    const indexes = this.info.indexes.map((name) => [name, name]);
    const category = `re-categories-${Math.random().toString(36).slice(2)}`; // two explorers stand in one notebook
    this.filters = {
      index: choice("index", indexes),
      compare: choice("compare", [["", "compare: nothing"], ...indexes.map(([name]) => [name, `compare: ${name}`])]),
      category: make("input", { type: "search", placeholder: "any category", "aria-label": "category" }),
      split: choice("split", [["", "all splits"], ...this.info.splits.map((name) => [name, name])]),
    };
    this.filters.category.setAttribute("list", category);
    this.filters.index.hidden = this.filters.compare.hidden = indexes.length < 2;
    this.filters.split.hidden = this.info.splits.length < 2;
    for (const [name, field] of Object.entries(this.filters)) {
      field.addEventListener("change", () => this.ask({ [name]: field.value }));
    }
    this.chosen = this.button("", "show all objects again", () => this.ask({ among: [] }), { hidden: true });
    const tools = make("div", { className: "re-form" },
      this.button("+ words", "another text; mix them with the sliders", () => this.addPart({ kind: "text", name: "" })),
      make("label", { className: "re-upload", title: "or drop one here, or paste it" }, "+ picture …", this.file),
      this.filters.index, this.filters.compare, this.filters.category, this.filters.split, this.chosen,
      this.button("map", "show where the objects lie", ({ target }) => {
        this.plane.hidden = !this.plane.hidden;
        target.setAttribute("aria-pressed", String(!this.plane.hidden));
        if (!this.plane.hidden) this.showMap();
      }, { "aria-pressed": "false" }),
      make("datalist", { id: category }, ...this.info.categories.map((value) => make("option", { value }))));
    const examples = make("div", { className: "re-examples" }, ...this.info.examples.map((text) =>
      this.button(text, "search for this", () => this.setParts([{ kind: "text", name: text, weight: 1 }]))));
    if (this.info.examples.length) examples.prepend("Try ");
    this.columns = make("div", { className: "re-columns" });
    this.columns.addEventListener("keydown", (event) => this.walk(event));
    this.pager = make("div", { className: "re-form re-pager" });
    this.kind = choice("kind of map", [["pca", "PCA"], ["t-sne", "t-SNE"]]);
    this.kind.addEventListener("change", () => this.showMap());
    this.plane = make("div", { className: "re-map", hidden: true }, this.kind);
    this.why = make("div", { className: "re-form" });
    this.aside = make("aside", { className: "re-aside", hidden: true, "aria-label": "opened object" });
    const body = make("div", { className: "re-body" }, make("div", {}, this.plane, this.columns, this.pager), this.aside);
    const root = make("div", { className: "clipgs-re" }, this.rows, tools, examples, this.status, body);
    root.addEventListener("keydown", (event) => event.stopPropagation());
    root.addEventListener("paste", (event) => this.take(event, event.clipboardData));
    root.addEventListener("drop", (event) => this.take(event, event.dataTransfer));
    for (const kind of ["dragover", "dragleave", "drop"]) {
      root.addEventListener(kind, (event) => {
        if (kind !== "dragleave") event.preventDefault();
        root.classList.toggle("re-over", kind === "dragover");
      });
    }
    return root;
  }

  // ---- asking ----------------------------------------------------------------------------------------------------

  /** Ask for changes of the state: one request is on its way at a time, and what comes meanwhile goes as one. */
  ask(changes, typed = false) {
    this.pending = { ...this.pending, ...changes };
    this.typed = typed;
    if (!this.waiting) this.flush();
  }

  flush() {
    if (!this.pending) return;
    const changes = this.pending;
    this.pending = null;
    this.waiting = true;
    this.post({ type: "change", changes });
  }

  post(content) {
    this.seq += 1;
    if (content.type === "open") this.opening = this.seq;
    else if (content.type !== "map") this.asked = this.seq;
    this.root.dataset.state = "busy";
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.silent(), SILENCE_MS);
    try {
      this.model.send({ ...content, seq: this.seq });
    } catch {
      this.silent(); // the channel is closed
    }
  }

  silent() {
    this.waiting = false;
    this.say(SILENT, true);
  }

  receive(content, buffers) {
    clearTimeout(this.timer);
    if (content.type === "map") {
      this.map.show({ places: viewOf(buffers[0]) });
      return this.say(this.note);
    }
    if (content.type === "details") {
      if (content.seq && content.seq < this.opening) return undefined;
      return this.showDetails(content, buffers[0]);
    }
    if (content.seq && content.seq < this.asked) return undefined;
    const newer = this.pending; // what a person did since then stays in the fields
    this.waiting = false;
    if (content.type === "show") this.show(content, buffers, Boolean(newer));
    else if (content.wrong && content.of === "change") this.showHits([], []);
    if (content.type !== "show") this.say(content.text, content.wrong && !this.typed);
    return this.flush();
  }

  // ---- the query -------------------------------------------------------------------------------------------------

  get parts() {
    return this.state.parts;
  }

  setParts(parts) {
    this.state.parts = parts;
    this.showParts();
    this.ask({ parts });
  }

  addPart(part) {
    this.setParts([...this.parts.filter((one) => one.kind !== "text" || one.name), { weight: 1, ...part }]);
    this.rows.lastElementChild.querySelector("[type=search]")?.focus();
  }

  take(event, data) {
    const file = [...(data?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    this.choose(file);
  }

  /** Search by a picture, shrunk here, so that a photograph of any size gets through. */
  async choose(file) {
    this.file.value = ""; // so that the same file can be chosen again
    if (!file) return;
    let address;
    try {
      const picture = await createImageBitmap(file);
      const scale = Math.min(1, SIDE / Math.max(picture.width, picture.height));
      const canvas = make("canvas", { width: Math.ceil(picture.width * scale), height: Math.ceil(picture.height * scale) });
      const paint = canvas.getContext("2d");
      paint.fillStyle = "#ffffff";
      paint.fillRect(0, 0, canvas.width, canvas.height);
      paint.drawImage(picture, 0, 0, canvas.width, canvas.height);
      address = canvas.toDataURL("image/webp", 0.95);
    } catch {
      return this.say("This file is no picture that the browser can draw; save it as PNG or JPEG.", true);
    }
    return this.addPart({ kind: "picture", name: file.name || "pasted picture", picture: address.split(",")[1] });
  }

  showParts() {
    if (!this.parts.some((part) => part.kind === "text")) {
      this.state.parts = [{ kind: "text", name: "", weight: 1 }, ...this.parts];
    }
    this.rows.replaceChildren(...this.parts.map((part, i) => this.part(part, i)), ...this.marks());
  }

  part(part, i) {
    const number = make("span", { className: "re-number" });
    const slider = make("input", { type: "range", min: -1, max: 1, step: 0.05, value: part.weight, "aria-label": "weight" });
    const tell = () => (number.textContent = `${part.weight > 0 ? "+" : ""}${(+part.weight).toFixed(2)}`);
    slider.addEventListener("input", () => {
      part.weight = Number(slider.value);
      tell();
      this.ask({ parts: this.parts });
    });
    tell();
    const remove = this.button("✕", "remove", () => this.setParts(this.parts.filter((one) => one !== part)), { className: "re-x" });
    return this.row(this.termOf(i), this.field(part), slider, number, remove);
  }

  field(part) {
    if (part.kind === "text") {
      const field = make("input", { type: "search", className: "re-text", value: part.name, maxLength: 2000,
        placeholder: "describe a thing, or drop a picture", autocomplete: "off", "aria-label": "text to search for" });
      field.addEventListener("input", () => {
        part.name = field.value;
        this.ask({ parts: this.parts }, true);
      });
      field.addEventListener("keydown", (event) => event.key === "Enter" && !event.isComposing && this.ask({ parts: this.parts }));
      return field;
    }
    const [name, picture] = part.kind === "shape" ? this.thumbs?.[part.name] ?? [part.name, ""] : [part.name, part.picture];
    return make("span", { className: "re-chip" },
      make("img", { src: `data:image/webp;base64,${picture}`, alt: "" }), make("span", {}, name));
  }

  /** Number of the query's term that a part is: empty ones are none. */
  termOf(i) {
    return this.parts.slice(0, i).filter((part) => part.name.trim() || part.picture).length;
  }

  row(term, ...children) {
    return make("div", { className: "re-part", "data-term": term % SHADES }, make("i", { className: "re-dot" }), ...children);
  }

  marks() {
    const first = this.termOf(this.parts.length), { more = [], less = [] } = this.state;
    return (this.terms ?? []).slice(first).map((term, i) => this.row(first + i,
      make("span", { className: "re-chip" }, make("span", {}, term.name)),
      make("span", { className: "re-number" }, `${term.weight > 0 ? "+" : ""}${term.weight.toFixed(2)}`),
      this.button("✕", "forget these marks", () => this.ask(i === 0 && more.length ? { more: [], less } : { more, less: [] }),
        { className: "re-x" })));
  }

  // ---- hits ------------------------------------------------------------------------------------------------------

  show(content, buffers, newer) {
    const plain = (parts) => JSON.stringify(parts.map(({ kind, name, weight }) => [kind, name, +weight]));
    const here = this.parts, moved = this.state.index !== content.state.index;
    const same = newer || plain(here) === plain(content.state.parts);
    const marks = JSON.stringify(this.terms?.slice(this.termOf(here.length)));
    Object.assign(this, { state: content.state, terms: content.terms, thumbs: content.thumbs, explains: content.explains });
    if (same) this.state.parts = here; // the fields hold these
    if (!same || here.some((part) => part.kind === "shape") || marks !== JSON.stringify(this.terms.slice(this.termOf(here.length)))) {
      this.showParts();
    }
    for (const [name, field] of Object.entries(this.filters)) field.value = this.state[name];
    this.chosen.hidden = !this.state.among.length;
    this.chosen.textContent = `${this.state.among.length} chosen on the map ✕`;
    this.root.dataset.single = String(this.terms.length < 2 && this.parts.every((part) => part.weight === 1));
    this.background = buffers.at(-1).byteLength ? viewOf(buffers.at(-1)) : null;
    this.showHits(content.columns, buffers);
    this.showPager(content.pages);
    if (moved && !this.plane.hidden) this.showMap();
    this.note = content.note;
    this.showWhy();
    this.say(this.note);
  }

  /** A column for each index that answered: its name when there are two, a warning when nothing fits, and the hits. */
  showHits(columns, pictures) {
    this.hits = columns.flatMap(({ hits }) => hits);
    this.forget();
    this.columns.replaceChildren(...columns.map(({ index, fits, hits }, place) => {
      const src = hits.length ? this.url(pictures[place], "image/jpeg") : "", name = columns.length > 1 ? index : "";
      const most = Math.max(1e-6, ...hits.flatMap((hit) => hit.shares.map(Math.abs)));
      const grid = make("ol", { className: "re-grid", "aria-label": name ? `hits of ${name}` : "hits" },
        ...hits.map((hit, i) => this.hit(hit, this.picture(src, i, hits.length), most)));
      return make("section", {}, make("h4", { hidden: !name }, name), make("div", { className: "re-warning", hidden: fits }, NOTHING_FITS), grid);
    }));
    if (!this.hits.length) this.pager.replaceChildren();
    this.mark();
  }

  hit(hit, picture, most) {
    const label = `${hit.category} ${hit.caption}, score ${hit.score.toFixed(2)}; open`;
    const card = this.button("", hit.caption, () => this.open(hit.row), { className: "re-hit", "aria-label": label, disabled: hit.row < 0 });
    card.append(picture, ...this.words(hit), ...this.scores(hit, this.terms, most));
    for (const rank of hit.beside) {
      card.lastChild.append(make("span", { className: "re-label", title: "its place in the other column" }, rank ? `also #${rank}` : "only here"));
    }
    for (const kind of ["pointerenter", "focus"]) card.addEventListener(kind, () => this.point(hit.row));
    for (const kind of ["pointerleave", "blur"]) card.addEventListener(kind, () => this.point(-1));
    const item = make("li", {}, card, make("div", { className: "re-marks", hidden: hit.row < 0 }, this.marker("more", "+", hit), this.marker("less", "−", hit)));
    item.dataset.row = hit.row;
    return item;
  }

  showMap() {
    this.say("Placing the objects …");
    this.post({ type: "map", kind: this.kind.value });
  }

  /** Show where an object is: in the columns and on the map. */
  point(row) {
    for (const item of this.columns.querySelectorAll("li")) item.classList.toggle("re-pointed", row >= 0 && Number(item.dataset.row) === row);
    this.map.show({ pointed: row });
  }

  marker(side, sign, { key }) {
    const there = this.state[side]?.includes(key), other = side === "more" ? "less" : "more";
    return this.button(sign, `${side} like this`, () => {
      const without = (keys) => keys.filter((one) => one !== key);
      const keys = there ? without(this.state[side]) : [...this.state[side], key];
      this.ask({ [side]: keys, [other]: without(this.state[other]) });
    }, { "aria-pressed": String(Boolean(there)) });
  }

  showPager(pages) {
    const { page } = this.state;
    const turn = (words, to) => this.button(words, words, () => this.ask({ page: to }), { disabled: to < 0 || to >= pages });
    this.pager.replaceChildren(...(pages > 1
      ? [turn("← before", page - 1), make("span", {}, `page ${page + 1} of ${pages.toLocaleString("en")}`), turn("next →", page + 1)] : []));
  }

  walk(event) {
    const grid = event.target.closest(".re-grid"), cards = [...(grid?.querySelectorAll(".re-hit") ?? [])], at = cards.indexOf(event.target);
    if (at < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
    const step = stepOf(event.key, grid), side = { "+": "more", "-": "less" }[event.key];
    if (side) event.target.parentElement.querySelector(`[title="${side} like this"]`).click();
    else if (step !== undefined) cards[Math.max(0, Math.min(at + step, cards.length - 1))].focus();
    else return;
    event.preventDefault();
  }

  // ---- the opened object -----------------------------------------------------------------------------------------

  open(row) {
    this.say("Opening …");
    this.post({ type: "open", row });
  }

  async showDetails({ seq, opened, facts, neighbours, view }, pictures) {
    this.state.opened = opened.key;
    const slot = make("div", { className: "re-slot" });
    this.forget(this.near);
    const src = neighbours.length ? this.url(pictures, "image/jpeg", this.near) : "";
    const near = neighbours.map((one, i) => {
      const card = this.button("", `${one.caption}, cosine ${one.score.toFixed(2)}`, () => this.open(one.row), { className: "re-hit" });
      card.append(this.picture(src, i, neighbours.length), make("b", {}, one.category || one.caption));
      return make("li", {}, card);
    });
    const list = Object.entries(facts).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
    this.aside.replaceChildren(
      make("div", { className: "re-title" }, ...this.words(opened), this.button("✕", "close", () => this.shut(), { className: "re-x" })),
      slot, this.why, make("div", {}, "nearest neighbours"), make("ol", { className: "re-grid" }, ...near), make("dl", {}, ...list));
    this.aside.hidden = false;
    this.showWhy();
    this.say(`${this.note}; opened ${opened.caption}`);
    this.mark();
    const manager = this.model.widget_manager;
    if (!view || !manager?.create_view) return;
    const shown = await manager.create_view(await manager.get_model(view));
    if (seq && seq < this.opening) return shown.remove();
    this.view?.remove();
    this.view = shown;
    slot.replaceChildren(shown.el);
    const { top, bottom } = this.aside.getBoundingClientRect();
    if (top < 0 || bottom > innerHeight) this.aside.scrollIntoView({ block: "nearest" });
  }

  /** What can be asked of the opened object. */
  showWhy() {
    const terms = this.explains ? this.terms : [], show = (term) => {
      this.say("Leaving out one patch after the other …");
      this.post({ type: "why", term });
    };
    this.why.replaceChildren(
      this.button("similar objects", "search for its shape, too", () => this.addPart({ kind: "shape", name: this.state.opened })),
      ...terms.map(({ name }, i) => this.button(`why “${name}”?`, "paint what speaks for it", () => show(i))));
    if (terms.length) this.why.append(this.button("plain", "take the painting back", () => show(null)));
  }

  shut() {
    this.aside.hidden = true;
    this.view?.remove();
    this.view = null;
    this.ask({ opened: "" });
  }

  /** Show which hit is open, and all hits on the map. */
  mark() {
    this.columns.querySelectorAll("li").forEach((item, i) => {
      item.firstElementChild.toggleAttribute("aria-current", !this.aside.hidden && this.hits[i].key === this.state.opened);
    });
    this.map.show({ hits: this.hits.map((hit) => hit.row).filter((row) => row >= 0), scores: this.background });
  }
}

export default front(Explorer);
