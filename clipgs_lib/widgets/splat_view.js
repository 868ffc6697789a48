// The viewer: one canvas with its viewports, bound to the traits of the model.

const PADDING = 4, UNDER = 110; // CSS pixels: around it, and of the controls below on a full screen
const DAMPING_MS = 45;
const SYNC_MS = 120;

class SplatViewer {
  constructor(model, el, loadClouds) {
    this.model = model;
    this.info = model.get("_info");
    this.listeners = [];
    this.timers = new Set();
    this.closed = false;
    this.frame = 0;
    this.pace = new Pace((ms, action) => this.later(ms, action), () => this.invalidate());
    this.renderer = null;
    this.buildPage(el);
    this.ports = this.info.views.map((view, i) => this.buildPort(view, i));
    for (const element of this.root.querySelectorAll("[tabindex], input, button, select, summary")) {
      element.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab's keys stay out of ours
    }
    this.setTheme();
    this.takeCameras();
    this.resizing = new ResizeObserver(() => this.layout());
    this.resizing.observe(this.root);
    this.unwatch = watchColors(() => this.setTheme());
    this.watchModel();
    this.later(3000, () => this.root.dataset.state === "waiting" &&
      this.say("Waiting for the kernel; the live view starts when it is free. Without a kernel: run the cell again."));
    loadClouds().then((clouds) => this.closed || this.start(clouds));
  }

  // ---- page ------------------------------------------------------------------------------------------------------

  buildPage(el) {
    this.canvas = make("canvas", { className: "sv-canvas", "aria-hidden": "true" });
    this.overlay = make("div", { className: "sv-overlay" });
    this.poster = make("img", { className: "sv-poster", alt: "still picture of the splats", hidden: true });
    this.grid = make("div", { className: "sv-grid" }, this.canvas, this.overlay);
    this.status = make("div", { className: "sv-status", role: "status", "aria-live": "polite" });
    this.help = make("div", { className: "sv-help", hidden: true }, HELP);
    this.legend = legend(this.model);
    this.controls = controlBar(this.model, this.info, {
      reset: () => this.reset(),
      download: () => this.download(),
      fullscreen: () => document.fullscreenElement ? document.exitFullscreen() : this.root.requestFullscreen(),
      help: () => (this.help.hidden = !this.help.hidden),
    });
    this.root = make("div", { className: "clipgs-sv", "data-state": "waiting" });
    this.root.append(this.poster, this.grid, this.legend.element, this.controls.element, this.help, this.status);
    el.append(this.root);
    this.setValues();
    this.showPoster();
  }

  buildPort(view, index) {
    const port = new Viewport(view, this.info.scene.up, {
      move: (motion) => {
        port.push(motion);
        this.invalidate();
      },
      click: (x, y) => this.select(index, x, y),
      focus: (x, y) => {
        const row = this.pick(index, x, y);
        if (row >= 0) this.focusOn(index, row);
      },
      key: (event) => this.key(index, event),
    });
    this.overlay.append(port.box, port.marker);
    this.grid.append(port.cell);
    return port;
  }

  say(text) {
    this.status.textContent = text;
  }

  setTheme() {
    this.root.dataset.theme = this.model.get("theme");
    for (const port of this.ports) port.lieOn(this.model.get("background"));
  }

  showPoster() {
    const bytes = this.model.get("poster");
    if (!bytes || bytes.byteLength === 0 || this.root.dataset.state !== "waiting") return;
    const url = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
    this.poster.onload = () => URL.revokeObjectURL(url);
    this.poster.src = url;
    this.poster.hidden = false;
    this.grid.hidden = true;
  }

  setValues() {
    const value = this.model.get("_legend");
    this.controls.setValues(value);
    this.legend.show(value);
    this.renderer?.setColormap(Uint8Array.from(value?.colormap ?? new Array(1024).fill(0)));
  }

  layout() {
    const available = this.root.clientWidth - 2 * PADDING;
    if (available <= 0) return;
    this.ratio = window.devicePixelRatio || 1;
    const screen = document.fullscreenElement === this.root ? window.innerHeight - UNDER : null;
    const { columns, width, height, places } = arrange(available, this.info, this.ports.length, screen);
    this.columns = columns;
    this.grid.style.gridTemplateColumns = `repeat(${columns}, ${places[0].w}px)`;
    this.grid.style.width = `${width}px`;
    this.ports.forEach((port, i) => {
      if (port.lay(places[i])) this.unsynced = true;
    });
    this.size = { width, height };
    this.setTheme(); // now that the page gives colours
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    this.sizeCanvas();
    this.draw(); // at once: a resized canvas is blank
    this.invalidate();
  }

  sizeCanvas() {
    this.canvas.width = Math.ceil(this.size.width * this.ratio);
    this.canvas.height = Math.ceil(this.size.height * this.ratio);
    for (const port of this.ports) port.dirty = true;
  }

  // ---- model -----------------------------------------------------------------------------------------------------

  on(event, callback) {
    this.model.on(event, callback);
    this.listeners.push([event, callback]);
  }

  watchModel() {
    for (const name of ["sh_degree", "splat_scale", "color_mode", "crop", "crop_on"]) {
      this.on(`change:${name}`, () => this.repaint());
    }
    this.on("change:color_mode", () => this.legend.show(this.model.get("_legend")));
    for (const name of ["theme", "background"]) this.on(`change:${name}`, () => this.setTheme());
    this.on("change:poster", () => this.showPoster());
    this.on("change:selected", () => this.describe());
    this.on("change:cameras", () => this.takeCameras());
    this.on("change:linked", () => this.model.get("linked") && this.linkTo(this.ports[0]));
    this.on("msg:custom", (content, buffers) => {
      if (content.type === "values") this.takeValues(content, buffers);
    });
  }

  /** Cameras as Python set them: one for all viewports, or one each. */
  takeCameras() {
    const cameras = this.model.get("cameras");
    if (JSON.stringify(cameras) === this.sent) return;
    this.ports.forEach((port, i) => {
      const { center, radius } = this.info.views[i];
      const camera = cameras[Math.min(i, cameras.length - 1)];
      port.look(camera, orbitTarget(camera, center, radius));
      if (!sameCamera(port.camera, camera)) this.unsynced = true;
    });
    this.invalidate();
  }

  /** Tell Python where the cameras are, at most every SYNC_MS, and once at rest. */
  sync() {
    const wait = SYNC_MS - (performance.now() - (this.synced ?? -1e9));
    if (wait > 0) {
      this.syncTimer ??= this.later(wait, () => {
        this.syncTimer = null;
        this.sync();
      });
      return;
    }
    this.synced = performance.now();
    const cameras = this.ports.map(({ camera: { viewmat, K, width, height } }) => ({ viewmat, K, width, height }));
    this.sent = JSON.stringify(cameras);
    this.unsynced = false;
    this.model.set("cameras", cameras);
    this.model.save_changes();
  }

  takeValues(content, buffers) {
    if (!this.renderer) return; // start() asks for them
    buffers.forEach((buffer, view) => this.renderer.setValues(view, typed(Uint8Array, buffer)));
    this.setValues();
    this.repaint();
  }

  // ---- motion ----------------------------------------------------------------------------------------------------

  linkTo(leader) {
    for (const port of this.ports) port.follow(leader);
    this.unsynced = true;
    this.invalidate();
  }

  /** Everything as it was when the widget was made. */
  reset() {
    const start = { ...this.info.start, color_mode: this.model.get("_legend") ? "value" : "color", selected: null };
    for (const [name, value] of Object.entries(start)) this.model.set(name, value);
    this.model.save_changes();
    for (const port of this.ports) port.look(port.view.home, port.view.center);
    this.unsynced = true;
    if (this.model.get("linked")) this.linkTo(this.ports[0]);
    this.invalidate();
  }

  key(index, event) {
    const port = this.ports[index];
    const motion = keyMotion(event, port.camera);
    const degree = { "[": -1, "]": 1 }[event.key];
    if (motion) port.push(motion);
    else if (degree) setter(this.model, "sh_degree")(clamp(this.model.get("sh_degree") + degree, 0, this.info.max_degree));
    else if (event.key === "r") this.reset();
    else if (event.key === "f") this.focusOn(index, this.selectedIn(index));
    else if (event.key === "?") this.help.hidden = !this.help.hidden;
    else if (event.key === "Escape") setter(this.model, "selected")(null);
    else return false;
    this.invalidate();
    return true;
  }

  // ---- selection -------------------------------------------------------------------------------------------------

  pick(index, x, y) {
    const at = (v) => Math.floor(v * this.ratio) + 0.5; // the pixel under the pointer, by its centre
    return this.renderer ? this.renderer.pick(index, this.look(index, this.ratio), at(x), at(y)) : -1;
  }

  select(index, x, y) {
    const row = this.pick(index, x, y);
    setter(this.model, "selected")(row < 0 ? null : [index, originalRow(this.renderer.clouds[index], row)]);
  }

  /** Packed row of the selected gaussian when it belongs to this viewport, else -1. */
  selectedIn(index) {
    const selected = this.model.get("selected");
    const here = selected && selected[0] === index && this.renderer;
    return here ? packedRow(this.renderer.clouds[index], selected[1]) : -1;
  }

  describe() {
    const selected = this.model.get("selected");
    this.invalidate();
    if (!selected || !this.renderer) return this.say("");
    const [view, original] = selected;
    const row = this.selectedIn(view);
    const name = `gaussian ${original.toLocaleString("en")} of ${this.info.views[view].name}`;
    if (row < 0) return this.say(`${name}: not among those shown`);
    return this.say(`${name} · ${gaussianText(this.renderer.clouds[view], row)}`);
  }

  /** Bring a gaussian (or, with -1, the middle of the scene) to the centre of the picture and turn about it. */
  focusOn(index, row) {
    const port = this.ports[index];
    port.focus(row >= 0 ? meanOf(this.renderer.clouds[index], row) : port.view.center);
    this.invalidate();
  }

  // ---- drawing ---------------------------------------------------------------------------------------------------

  start(clouds) {
    try {
      this.renderer = new SplatRenderer(this.canvas, () => this.repaint());
      this.renderer.load(clouds);
    } catch (error) {
      this.say(`The live view cannot start: ${error.message}`);
      this.root.dataset.state = "failed";
      return;
    }
    this.sorter = new DepthSorter((view, order) => {
      this.renderer.setOrder(view, order);
      this.ports[view].dirty = true;
      this.invalidate();
    });
    clouds.forEach((cloud, view) => this.sorter.load(view, cloud.floats, cloud.count));
    if (this.model.get("_legend")) this.model.send({ type: "values" });
    this.setValues();
    this.poster.hidden = true;
    this.grid.hidden = false;
    this.root.dataset.state = "busy";
    this.say("");
    this.layout();
    this.describe();
  }

  repaint() {
    for (const port of this.ports) port.dirty = true;
    this.invalidate();
  }

  invalidate() {
    if (!this.renderer || this.closed) return;
    this.root.dataset.state = "busy";
    if (!this.frame) this.frame = requestAnimationFrame((now) => this.tick(now));
  }

  tick(now) {
    this.frame = 0;
    if (this.closed || !this.ports[0].place) return;
    const gap = now - (this.last ?? now - 16);
    const share = 1 - Math.exp(-clamp(gap, 4, 50) / DAMPING_MS);
    let moving = false;
    for (const port of this.ports.filter((one) => one.unrest > 0)) {
      moving = port.advance(share) || moving;
      this.unsynced = true;
      if (this.model.get("linked")) this.linkTo(port);
    }
    if (moving) this.pace.move(gap);
    this.last = moving ? now : null;
    this.ports.forEach((port, view) => this.sorter.request(view, cameraAxes(port.camera)[2]));
    this.draw();
    if (this.unsynced) this.sync();
    if (moving) this.invalidate();
    else if (this.pace.moving) this.pace.rest();
    else if (this.sorter.settled && !this.ports.some((p) => p.dirty)) this.root.dataset.state = "ready";
  }

  /** How a viewport is drawn, `ratio` pixels of its target per CSS pixel. */
  look(view, ratio) {
    return {
      degree: this.model.get("sh_degree"), scale: this.model.get("splat_scale"), ratio, crop: cropBox(this.model),
      byValue: this.model.get("color_mode") === "value", camera: this.ports[view].camera,
    };
  }

  draw(backgrounds = this.ports.map(() => [0, 0, 0, 0])) {
    if (!this.renderer || !this.ports[0].place || this.renderer.gl.isContextLost()) return;
    const { detail } = this.pace;
    this.ports.forEach((port, view) => {
      if (port.dirty || port.detail !== detail) this.renderer.drawSplats(view, this.look(view, this.ratio * detail));
      port.dirty = false;
      port.detail = detail;
      this.annotate(port, view);
    });
    this.renderer.present(this.places(), backgrounds); // clear: the surfaces below have the colour
  }

  /** Rectangles of the viewports on the canvas, in its pixels. */
  places() {
    return this.ports.map(({ place: { x, y, w, h } }) => ({
      x: Math.round(x * this.ratio), y: Math.round(y * this.ratio),
      width: Math.round(w * this.ratio), height: Math.round(h * this.ratio),
    }));
  }

  annotate(port, view) {
    const row = this.selectedIn(view), box = cropBox(this.model);
    const mean = row >= 0 ? meanOf(this.renderer.clouds[view], row) : null;
    port.mark(mean && inCrop(box, mean) ? mean : null);
    port.outline(box);
  }

  // ---- pictures --------------------------------------------------------------------------------------------------

  /** PNG blob of all viewports side by side on an opaque background, once nothing moves; null when there is none. */
  async snapshot() {
    while (["waiting", "busy"].includes(this.root.dataset.state)) {
      await new Promise((resolve) => this.later(20, resolve));
      if (this.closed) return null;
    }
    if (this.root.dataset.state === "failed") return null;
    const width = this.controls.pngWidth();
    const most = 8192 / Math.max(this.size.width, this.size.height); // canvases have their limits
    if (width) this.ratio = Math.min(width / this.ports[0].place.w, most);
    this.sizeCanvas();
    this.draw(this.ports.map((port) => [...port.background, 1]));
    const sheet = this.renderer.sheet(this.places(), this.columns, Math.round(GAP * this.ratio));
    this.layout();
    return new Promise((resolve) => sheet.toBlob(resolve, "image/png"));
  }

  async download() {
    const blob = await this.snapshot();
    if (!blob) return;
    const url = URL.createObjectURL(blob);
    const name = this.info.views.map((view) => view.name.replace(/[^\w.-]+/g, "_")).join("_").slice(0, 80);
    make("a", { href: url, download: `${name || "splats"}.png` }).click();
    this.later(1000, () => URL.revokeObjectURL(url));
  }

  later(ms, action) {
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      action();
    }, ms);
    this.timers.add(timer);
    return timer;
  }

  close() {
    this.closed = true;
    cancelAnimationFrame(this.frame);
    for (const timer of this.timers) clearTimeout(timer);
    for (const [event, callback] of this.listeners) this.model.off(event, callback);
    this.resizing.disconnect();
    this.unwatch();
    this.sorter?.close();
    this.renderer?.close();
    this.root.remove();
  }
}
