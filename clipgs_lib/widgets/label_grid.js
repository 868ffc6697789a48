// The page of LabelPanel: a grid of thumbnails, one of them current, answered by keys. Messages: see label_grid.py.
// Captions and keys go into the page as textContent only.

const KEYS = { y: "yes", n: "no", s: "skip" };
const MARKS = { yes: "✓ yes", no: "✕ no", skip: "– skipped", "": "" };

class Labels {
  constructor(model, el) {
    this.model = model;
    this.urls = [];
    this.listeners = [];
    this.cells = [];
    this.at = 0;
    this.pending = 0; // messages without their reply
    this.build(el);
    this.on("msg:custom", (content, buffers) => this.receive(content, buffers));
    this.on("change:theme", () => this.setTheme());
    this.setTheme();
    this.send({ type: "load" });
  }

  on(event, callback) {
    this.model.on(event, callback);
    this.listeners.push([event, callback]);
  }

  build(el) {
    const button = (words, title, action) => {
      const one = make("button", { type: "button", title }, words);
      one.addEventListener("click", () => {
        action();
        this.grid.focus();
      });
      return one;
    };
    const bar = make("div", { className: "re-form" },
      button("Yes (y)", "it is", () => this.answer("yes")), button("No (n)", "it is not", () => this.answer("no")),
      button("Skip (s)", "cannot tell", () => this.answer("skip")),
      button("Undo (u)", "take the last answer back", () => this.send({ type: "undo" })),
      button("Next (Enter)", "refit and show the next page", () => this.send({ type: "next" })));
    this.question = make("b", {}, this.model.get("_info").positives);
    this.status = make("div", { className: "re-status", role: "status", "aria-live": "polite" });
    this.progress = make("progress", { className: "lg-progress", "aria-label": "answered on this page" });
    this.grid = make("div", { className: "re-grid", role: "listbox", tabIndex: 0, "aria-label": "objects to answer" });
    this.grid.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab's keys stay out of ours
    this.grid.addEventListener("keydown", (event) => this.press(event));
    this.root = make("div", { className: "clipgs-re clipgs-lg", "data-state": "ready" }, this.question, bar, this.progress,
      this.status, this.grid);
    el.append(this.root);
  }

  setTheme() {
    this.root.dataset.theme = this.model.get("theme");
  }

  say(text, wrong = false) {
    this.status.textContent = text;
    this.root.dataset.state = wrong ? "wrong" : "ready";
  }

  // ---- answering -------------------------------------------------------------------------------------------------

  send(content) {
    this.root.dataset.state = "busy";
    this.pending += 1;
    this.model.send(content);
  }

  answer(answer) {
    const cell = this.cells[this.at];
    if (!cell) return;
    this.send({ type: "answer", answer, key: cell.dataset.key });
    this.go(this.at + 1); // a fast hand does not wait for Python, which says the same
  }

  press(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const columns = getComputedStyle(this.grid).gridTemplateColumns.split(" ").length;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    const letter = event.key.toLowerCase();
    if (KEYS[letter]) this.answer(KEYS[letter]);
    else if (letter === "u") this.send({ type: "undo" });
    else if (event.key === "Enter") this.send({ type: "next" });
    else if (event.key in steps) this.go(this.at + steps[event.key]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  go(place) {
    this.at = Math.max(0, Math.min(place, this.cells.length - 1));
    this.cells.forEach((cell, i) => cell.setAttribute("aria-selected", String(i === this.at)));
    const cell = this.cells[this.at];
    if (cell) this.grid.setAttribute("aria-activedescendant", cell.id);
    cell?.scrollIntoView({ block: "nearest" });
  }

  // ---- showing ---------------------------------------------------------------------------------------------------

  receive(content, buffers) {
    this.pending = Math.max(0, this.pending - 1);
    if (content.type === "say") return this.say(content.text, Boolean(content.wrong));
    if (content.type === "page") this.showPage(content.cells, buffers);
    if (content.type !== "page" && content.type !== "state") return undefined;
    content.answers.forEach((answer, i) => {
      this.cells[i].dataset.answer = answer;
      this.cells[i].querySelector(".re-score").textContent = MARKS[answer];
    });
    this.progress.max = Math.max(1, this.cells.length);
    this.progress.value = content.answers.filter(Boolean).length;
    if (!this.pending) this.go(content.at); // else it is where the hand was, not where it is
    return this.say(this.cells.length ? content.note : `${content.note}; everything is answered`);
  }

  showPage(cells, buffers) {
    this.urls.forEach((url) => URL.revokeObjectURL(url));
    const bytes = (i) => new DataView(buffers[i].buffer ?? buffers[i], buffers[i].byteOffset ?? 0, buffers[i].byteLength);
    this.urls = cells.map((cell, i) => URL.createObjectURL(new Blob([bytes(i)], { type: cell.kind })));
    this.cells = cells.map((cell, i) => this.cell(cell, i));
    this.grid.replaceChildren(...this.cells);
  }

  cell({ key, caption }, i) {
    const cell = make("div", { className: "re-hit", role: "option", id: `lg-${this.model.model_id ?? ""}-${i}`, title: caption },
      make("img", { src: this.urls[i], alt: "" }), make("span", { className: "re-caption" }, caption),
      make("span", { className: "re-score" }));
    cell.dataset.key = key;
    cell.addEventListener("click", () => this.go(i));
    return cell;
  }

  close() {
    this.listeners.forEach(([event, callback]) => this.model.off(event, callback));
    this.urls.forEach((url) => URL.revokeObjectURL(url));
    this.root.remove();
  }
}

export default () => ({
  initialize({ model }) {
    keepStills(model.widget_manager);
  },
  render({ model, el }) {
    const labels = new Labels(model, el);
    return () => labels.close();
  },
});
