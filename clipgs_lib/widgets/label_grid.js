// The page of LabelPanel: a grid of thumbnails, one of them current, answered by keys. Messages: see label_grid.py.
// Captions and keys go into the page as textContent only.

const KEYS = { y: "yes", n: "no", s: "skip" };
const MARKS = { yes: "✓ yes", no: "✕ no", skip: "– skipped", "": "" };

class Labels extends Panel {
  constructor(model, el) {
    super(model, el);
    this.cells = [];
    this.at = 0;
    this.pending = 0; // messages without their reply
    this.send({ type: "load" });
  }

  build() {
    const button = (words, title, action) =>
      this.button(words, title, () => {
        action();
        this.grid.focus();
      });
    const bar = make("div", { className: "re-form" },
      button("Yes (y)", "it is", () => this.answer("yes")), button("No (n)", "it is not", () => this.answer("no")),
      button("Skip (s)", "cannot tell", () => this.answer("skip")),
      button("Undo (u)", "take the last answer back", () => this.send({ type: "undo" })),
      button("Next (Enter)", "refit and show the next page", () => this.send({ type: "next" })));
    this.progress = make("progress", { className: "lg-progress", "aria-label": "answered on this page" });
    this.grid = make("div", { className: "re-grid", role: "listbox", tabIndex: 0, "aria-label": "objects to answer" });
    this.grid.addEventListener("keydown", (event) => this.press(event));
    return make("div", { className: "clipgs-re clipgs-lg" }, make("b", {}, this.info.positives), bar, this.progress,
      this.status, this.grid);
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
    const step = stepOf(event.key, this.grid);
    const letter = event.key.toLowerCase();
    if (KEYS[letter]) this.answer(KEYS[letter]);
    else if (letter === "u") this.send({ type: "undo" });
    else if (event.key === "Enter") this.send({ type: "next" });
    else if (step !== undefined) this.go(this.at + step);
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

  showPage(cells, [pictures]) {
    this.forget();
    const src = cells.length ? this.url(pictures, "image/jpeg") : "";
    this.cells = cells.map((cell, i) => this.cell(cell, i, this.picture(src, i, cells.length)));
    this.grid.replaceChildren(...this.cells);
  }

  cell({ key, caption }, i, picture) {
    const cell = make("div", { className: "re-hit", role: "option", id: `lg-${this.model.model_id ?? ""}-${i}`, title: caption },
      picture, make("span", { className: "re-caption" }, caption), make("span", { className: "re-score" }));
    cell.dataset.key = key;
    cell.addEventListener("click", () => this.go(i));
    return cell;
  }
}

export default front(Labels);
