// Answers to queries, on a page without a kernel: cards, and the splats of some of them live. Data: see answers.py.

class Answers extends Panel {
  constructor(model, el) {
    super(model, el);
    this.choose(0);
    const [first] = this.root.querySelectorAll("section:not([hidden]) button.re-hit");
    if (!matchMedia("(max-width: 820px)").matches) first?.click(); // on a small screen it would cover the hits
  }

  close() {
    this.shut();
    super.close();
  }

  // ---- page ------------------------------------------------------------------------------------------------------

  build() {
    const { queries, stacked } = this.info;
    this.aside = make("aside", { className: "re-aside", hidden: true, "aria-label": "opened object" });
    this.sections = queries.map((query) => this.section(query));
    this.tabs = queries.map(({ terms, right }, i) => {
      const words = terms.map(({ name, weight }) => `${weight < 0 ? "not " : ""}${name}`).join(", ");
      const tab = this.button(words, words, () => this.choose(i, true));
      if (right) tab.append(make("span", { className: "an-count", title: "right among the first five" }, `${right.first}/${right.of}`));
      return tab;
    });
    const root = make("div", { className: "clipgs-re clipgs-an" },
      make("nav", { className: "re-form", hidden: queries.length < 2, "aria-label": "queries" }, ...this.tabs),
      make("div", { className: "an-body" }, make("div", {}, ...this.sections), this.aside));
    root.classList.toggle("an-stacked", Boolean(stacked));
    return root;
  }

  /** A query: its terms, what is to be said of the answer, and the hits. */
  section({ terms, hits, notes, fits }) {
    const most = Math.max(1e-6, ...hits.flatMap((hit) => hit.shares.map(Math.abs)));
    const title = terms.map(({ name, weight, picture }, i) => {
      const term = make("span", { className: "re-chip", "data-term": i % SHADES });
      if (terms.length > 1) term.append(make("i", { className: "re-dot" }), make("span", { className: "re-number" }, `${weight > 0 ? "+" : "−"}${Math.abs(weight)}`));
      if (picture) term.append(make("img", { src: this.webp(picture), alt: "" }));
      term.append(make("bdi", {}, name));
      return term;
    });
    const warning = make("div", { className: "re-warning", hidden: fits }, NOTHING_FITS);
    const grid = make("ol", { className: "re-grid", "aria-label": "hits" }, ...hits.map((hit) => this.hit(hit, terms, most)));
    return make("section", {}, make("h3", {}, ...title), make("p", { className: "re-status" }, notes.join(" · ")), warning, grid);
  }

  hit(hit, terms, most) {
    const view = this.info.live[hit.key], words = this.words(hit);
    const card = view ? this.button("", `${hit.caption}: open its splat`, () => this.open(hit, card)) : make("div", { title: hit.caption });
    card.className = "re-hit";
    if (hit.right !== null) card.dataset.right = hit.right;
    if (hit.right) words[0].prepend(make("span", { className: "an-right", title: "a right answer" }, "✓ "));
    const picture = this.picture(this.webp(this.info.pictures[hit.key]), 0, 1);
    if (view) picture.append(make("span", { className: "an-live", title: "can be turned" }, "3D"));
    card.append(picture, ...words, ...this.scores(hit, terms, most));
    return make("li", {}, card);
  }

  webp(base64) {
    return `data:image/webp;base64,${base64}`;
  }

  // ---- what a person does ----------------------------------------------------------------------------------------

  /** Go to a query: to its place where all are shown, else it alone is. */
  choose(place, asked = false) {
    this.tabs.forEach((tab, i) => tab.setAttribute("aria-pressed", String(i === place)));
    if (!this.info.stacked) this.sections.forEach((section, i) => (section.hidden = i !== place));
    else if (asked) this.sections[place].scrollIntoView({ block: "start" });
  }

  /** Show a hit's splat, in the place of the one before. */
  open(hit, card) {
    this.shut();
    const slot = make("div", { className: "re-slot" });
    const list = Object.entries(hit.facts).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
    this.aside.replaceChildren(
      make("div", { className: "re-title" }, ...this.words(hit), this.button("✕", "close", () => this.shut(), { className: "re-x" })),
      slot, make("dl", {}, ...list));
    this.aside.hidden = false;
    card.setAttribute("aria-current", "true");
    this.opened = card;
    this.close_view = live(slot, this.info.live[hit.key]);
  }

  shut() {
    this.close_view?.();
    this.close_view = null;
    this.opened?.removeAttribute("aria-current");
    this.aside.hidden = true;
    this.aside.replaceChildren();
  }
}
