// What the explorer's and the labelling grid's pages share. Texts go into pages as textContent only.

const SHADES = 6; // colours of terms, in widgets.css
const NOTHING_FITS = "Nothing fits well: the best hits stand out no more than for things that are not here.";
const viewOf = (bytes) => new DataView(bytes.buffer ?? bytes, bytes.byteOffset ?? 0, bytes.byteLength);

/** A page of a model: its events, its theme, a line that says what goes on, and an end that leaves nothing behind. */
class Panel {
  constructor(model, el) {
    this.model = model;
    this.info = model.get("_info");
    this.urls = [];
    this.listeners = [];
    this.status = make("div", { className: "re-status", role: "status", "aria-live": "polite" });
    this.root = this.build();
    this.root.dataset.state = "ready";
    this.root.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab's keys stay out of ours
    el.append(this.root);
    this.on("msg:custom", (content, buffers) => this.receive(content, buffers));
    this.on("change:theme", () => this.setTheme());
    this.setTheme();
  }

  on(event, callback) {
    this.model.on(event, callback);
    this.listeners.push([event, callback]);
  }

  setTheme() {
    this.root.dataset.theme = this.model.get("theme");
  }

  say(text, wrong = false) {
    this.status.textContent = text;
    this.root.dataset.state = wrong ? "wrong" : "ready";
  }

  button(words, title, action, props = {}) {
    const one = make("button", { type: "button", title, ...props }, words);
    one.addEventListener("click", action);
    return one;
  }

  /** Address of a picture's bytes, until `forget`. */
  url(bytes, type, urls = this.urls) {
    urls.push(URL.createObjectURL(new Blob([viewOf(bytes)], { type })));
    return urls.at(-1);
  }

  /** The i-th of `count` pictures on a strip. */
  picture(src, i, count) {
    const one = make("span", { className: "re-picture" });
    one.style.backgroundImage = `url("${src}")`;
    one.style.backgroundSize = `${100 * count}% 100%`;
    one.style.backgroundPosition = `${count > 1 ? (100 * i) / (count - 1) : 0}% 0`;
    return one;
  }

  /** What a card says: the category and the caption. */
  words({ category, caption }) {
    const twice = caption.toLowerCase() === category.toLowerCase();
    return [make("b", {}, category || caption), make("span", { className: "re-caption" }, twice || !category ? "" : caption)];
  }

  /** And below: what each of several terms contributed, of `most` at most, the score, the split, and a label. */
  scores({ shares, score, split, label }, terms, most) {
    const bars = shares.length < 2 ? [] : shares.map((share, term) => {
      const bar = make("span", { className: "re-share", "data-term": term % SHADES, title: `${terms[term]?.name}: ${share.toFixed(2)}` });
      const width = (50 * Math.abs(share)) / most;
      bar.style.setProperty("--from", `${share < 0 ? 50 - width : 50}%`);
      bar.style.setProperty("--width", `${width}%`);
      return bar;
    });
    const foot = make("span", { className: "re-foot" }, make("span", { className: "re-score", title:
      "standard deviations above the mean of all objects" }, score.toFixed(2)));
    if (split) foot.append(make("span", { className: "re-label", "data-split": split, title: "split" }, split));
    if (label) foot.append(make("span", { className: "re-label", title: "nearest of your labels" }, `≈ ${label}`));
    return [...bars, foot];
  }

  forget(urls = this.urls) {
    urls.splice(0).forEach((url) => URL.revokeObjectURL(url));
  }

  close() {
    this.listeners.forEach(([event, callback]) => this.model.off(event, callback));
    this.forget();
    this.root.remove();
  }
}

/** Places that an arrow key goes on in a grid; undefined for other keys. */
function stepOf(key, grid) {
  const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  return { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
}

/** The front end of a widget whose page is of a kind. */
const front = (Kind) => () => ({
  initialize({ model }) {
    keepStills(model.widget_manager);
  },
  render({ model, el }) {
    const page = new Kind(model, el);
    return () => page.close();
  },
});
