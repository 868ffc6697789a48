// A viewer in a page without a kernel: the widget with a model that answers in Python's place.

class PageModel {
  /** state: the traits; answers: what Python would send, {splats: [content, buffers], values: [content, buffers]}. */
  constructor(state, answers) {
    this.state = state;
    this.answers = answers;
    this.handlers = [];
  }

  get(name) {
    return this.state[name];
  }

  set(name, value) {
    if (JSON.stringify(this.state[name]) === JSON.stringify(value)) return;
    this.state[name] = value;
    this.emit(`change:${name}`);
  }

  save_changes() {}

  send({ type }) {
    const answer = this.answers[type === "load" ? "splats" : type];
    if (answer) queueMicrotask(() => this.emit("msg:custom", ...answer));
  }

  on(event, handler) {
    this.handlers.push([event, handler]);
  }

  off(event, handler) {
    this.handlers = this.handlers.filter(([e, h]) => e !== event || h !== handler);
  }

  emit(event, ...values) {
    for (const [e, handler] of this.handlers.slice()) if (e === event) handler(...values);
  }
}

/** Put a live view into an element once it is on the screen; what stood there goes when the view is drawn.
 *
 * Or answers to queries (answers.py), at once. Returns how to take the view away.
 */
function live(element, { state, views, values, sizes, data, ...page }) {
  if (page.queries) {
    const answers = new Answers(new PageModel({ _info: page, theme: "auto" }, {}), make("div"));
    element.replaceChildren(answers.root);
    return () => answers.close();
  }
  let close = () => watch.disconnect();
  const start = async () => {
    const packed = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    const bytes = await new Response(stream).arrayBuffer();
    let from = 0;
    const buffers = sizes.map((size) => new DataView(bytes, (from += size) - size, size));
    const answers = { splats: [{ type: "splats", views }, buffers.slice(0, views.length)] };
    if (values) answers.values = [{ type: "values" }, buffers.slice(views.length)];
    const model = new PageModel(state, answers), still = [...element.children], page = make("div");
    element.append(page);
    const viewer = widget();
    viewer.initialize({ model });
    close = viewer.render({ model, el: page });
    const root = page.firstElementChild;
    new MutationObserver(() => {
      if (root.dataset.state === "failed") page.remove();
      if (root.dataset.state === "ready") still.forEach((one) => one.remove());
    }).observe(root, { attributes: true, attributeFilter: ["data-state"] });
  };
  const watch = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watch.disconnect();
    start();
  });
  watch.observe(element);
  return () => close();
}
