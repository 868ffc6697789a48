// The anywidget front end. Python concatenates the splat_*.js files (see splat_view.py); this one comes last.

const GAP = 8, HEADER = 24, PADDING = 4; // CSS pixels, whole numbers so that viewports lie on pixels
const DAMPING_MS = 45;
const SYNC_MS = 120;
const SLOW_MS = 90, FAST_MS = 24; // between frames: coarser pixels while moving above the one, finer below the other
const SHARPEN_MS = 120; // at rest this long: full pixels again

class SplatViewer {
  constructor(model, el, loadClouds) {
    this.model = model;
    this.info = model.get("_info");
    this.listeners = [];
    this.timers = new Set();
    this.closed = false;
    this.frame = 0;
    this.detail = 1; // pixels drawn per screen pixel, each way, while moving
    this.moving = false;
    this.renderer = null;
    this.buildPage(el);
    this.ports = this.info.views.map((view, i) => this.buildPort(view, i));
    for (const element of this.root.querySelectorAll("[tabindex], input, button, select, summary")) {
      element.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab's keys stay out of ours
    }
    this.takeCameras();
    this.resizing = new ResizeObserver(() => this.layout());
    this.resizing.observe(this.root);
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
      help: () => (this.help.hidden = !this.help.hidden),
    });
    this.root = make("div", { className: "clipgs-sv", "data-state": "waiting" });
    this.root.append(this.poster, this.grid, this.legend.element, this.controls.element, this.help, this.status);
    el.append(this.root);
    this.setTheme();
    this.setValues();
    this.showPoster();
  }

  buildPort(view, index) {
    const header = make("div", { className: "sv-header" }, make("b", {}, view.name), make("span", {}, view.note));
    header.title = `${view.name} ${view.note}`;
    const surface = make("div", { className: "sv-surface", tabIndex: 0, role: "application" });
    surface.setAttribute("aria-label", `3D view of ${view.name}, ${view.note}; press ? for help`);
    const marker = make("div", { className: "sv-marker", hidden: true });
    const axes = axesCross();
    this.overlay.append(marker, axes.element);
    this.grid.append(make("div", { className: "sv-cell" }, header, surface));
    const { background } = this.info;
    if (background) surface.style.background = `rgb(${background.map((c) => Math.round(255 * c)).join(",")})`;
    listenToViewport(surface, {
      move: (motion) => this.move(index, motion),
      click: (x, y) => this.select(index, x, y),
      focus: (x, y) => this.focusAt(index, x, y),
      key: (event) => this.key(index, event),
    });
    return { surface, marker, axes, camera: null, target: null, pending: stillMotion(), dirty: true, place: null };
  }

  say(text) {
    this.status.textContent = text;
  }

  setTheme() {
    this.root.dataset.theme = this.model.get("theme");
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

  /** Give every viewport whole CSS pixels; fewer columns when the cell is narrow. */
  layout() {
    const available = this.root.clientWidth - 2 * PADDING;
    if (available <= 0) return;
    const { width, height } = this.info;
    const fits = (n) => Math.floor((available - GAP * (n - 1)) / n);
    let columns = Math.min(this.info.columns, this.ports.length);
    while (columns > 1 && fits(columns) < Math.min(width, 160)) columns--;
    const w = Math.max(16, Math.min(width, fits(columns))), h = Math.max(16, Math.round((w * height) / width));
    this.ratio = window.devicePixelRatio || 1;
    this.columns = columns;
    this.grid.style.gridTemplateColumns = `repeat(${columns}, ${w}px)`;
    this.grid.style.width = `${columns * (w + GAP) - GAP}px`;
    this.ports.forEach((port, i) => {
      port.surface.style.height = `${h}px`;
      port.place = { x: (i % columns) * (w + GAP), y: Math.floor(i / columns) * (HEADER + h + GAP) + HEADER, w, h };
      port.axes.element.style.transform = `translate(${port.place.x + 4}px, ${port.place.y + h - 64}px)`;
      const fitted = fitCamera(port.camera, w, h);
      if (fitted !== port.camera) this.unsynced = true;
      port.camera = fitted;
      port.dirty = true;
    });
    const rows = Math.ceil(this.ports.length / columns);
    const size = [columns * (w + GAP) - GAP, rows * (HEADER + h + GAP) - GAP];
    this.canvas.style.width = `${size[0]}px`;
    this.canvas.style.height = `${size[1]}px`;
    this.canvas.width = Math.ceil(size[0] * this.ratio);
    this.canvas.height = Math.ceil(size[1] * this.ratio);
    this.draw(); // at once: a resized canvas is blank
    this.invalidate();
  }

  // ---- model -----------------------------------------------------------------------------------------------------

  on(event, callback) {
    this.model.on(event, callback);
    this.listeners.push([event, callback]);
  }

  watchModel() {
    for (const name of ["sh_degree", "splat_scale", "color_mode", "crop", "crop_on", "show_axes"]) {
      this.on(`change:${name}`, () => this.repaint());
    }
    this.on("change:color_mode", () => this.legend.show(this.model.get("_legend")));
    this.on("change:theme", () => this.setTheme());
    this.on("change:poster", () => this.showPoster());
    this.on("change:selected", () => this.describe());
    this.on("change:cameras", () => this.takeCameras());
    this.on("change:linked", () => this.model.get("linked") && this.linkTo(0));
    this.on("msg:custom", (content, buffers) => {
      if (content.type === "values") this.takeValues(content, buffers);
      if (content.type === "snapshot") this.snapshot().then(([blob]) => this.sendSnapshot(blob, content.id));
    });
  }

  /** Cameras as Python set them: one for all viewports, or one each. */
  takeCameras() {
    const cameras = this.model.get("cameras");
    if (JSON.stringify(cameras) === this.sent) return;
    this.ports.forEach((port, i) => {
      const { center, radius } = this.info.views[i];
      const camera = cameras[Math.min(i, cameras.length - 1)];
      port.camera = port.place ? fitCamera(camera, port.place.w, port.place.h) : camera;
      port.target = orbitTarget(camera, center, radius);
      port.pending = stillMotion();
      port.dirty = true;
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

  move(index, motion) {
    const { pending } = this.ports[index];
    for (const [name, amount] of Object.entries(motion)) pending[name] += amount;
    this.invalidate();
  }

  /** Play out part of the pending motion of one viewport; true while some is left. */
  advance(port, share) {
    const p = port.pending;
    const size = Math.abs(p.yaw) + Math.abs(p.pitch) + Math.abs(p.zoom) + (Math.abs(p.x) + Math.abs(p.y)) / 300;
    if (size === 0) return false;
    const part = size < 1e-3 ? 1 : share;
    const { up } = this.info.scene, { radius } = this.info.views[this.ports.indexOf(port)];
    if (p.yaw || p.pitch) port.camera = orbitCamera(port.camera, port.target, up, part * p.yaw, part * p.pitch);
    if (p.x || p.y) [port.camera, port.target] = panCamera(port.camera, port.target, part * p.x, part * p.y);
    if (p.zoom) port.camera = dollyCamera(port.camera, port.target, part * p.zoom, 0.01 * radius, 1000 * radius);
    for (const name of Object.keys(p)) p[name] *= 1 - part;
    this.moved(port);
    return part < 1;
  }

  moved(port) {
    port.dirty = true;
    this.unsynced = true;
    if (this.model.get("linked")) this.linkTo(this.ports.indexOf(port));
  }

  linkTo(index) {
    const { camera, target } = this.ports[index];
    for (const port of this.ports) {
      port.camera = { ...port.camera, viewmat: camera.viewmat };
      port.target = target;
      port.dirty = true;
    }
    this.unsynced = true;
    this.invalidate();
  }

  reset() {
    this.ports.forEach((port, i) => {
      const { home, center } = this.info.views[i];
      port.camera = fitCamera(home, port.camera.width, port.camera.height);
      port.target = center;
      port.pending = stillMotion();
      port.dirty = true;
    });
    this.unsynced = true;
    if (this.model.get("linked")) this.linkTo(0);
    this.invalidate();
  }

  key(index, event) {
    const port = this.ports[index];
    const motion = keyMotion(event, port.camera);
    const degree = { "[": -1, "]": 1 }[event.key];
    if (motion) this.move(index, motion);
    else if (degree) setter(this.model, "sh_degree")(clamp(this.model.get("sh_degree") + degree, 0, this.info.max_degree));
    else if (event.key === "r") this.reset();
    else if (event.key === "f") this.focusOn(index, this.selectedIn(index));
    else if (event.key === "?") this.help.hidden = !this.help.hidden;
    else if (event.key === "Escape") setter(this.model, "selected")(null);
    else return false;
    return true;
  }

  // ---- selection -------------------------------------------------------------------------------------------------

  pick(index, x, y) {
    if (!this.renderer) return -1;
    const within = this.cropTest();
    // the pixel under the pointer, by its centre
    const at = (v) => (Math.floor(v * this.ratio) + 0.5) / this.ratio;
    const { camera } = this.ports[index];
    const cloud = this.renderer.clouds[index];
    return pickGaussian(camera, cloud, at(x), at(y), this.model.get("splat_scale"), within);
  }

  select(index, x, y) {
    const found = this.pick(index, x, y);
    const cloud = this.renderer?.clouds[index];
    setter(this.model, "selected")(found < 0 ? null : [index, cloud.index ? cloud.index[found] : found]);
  }

  /** Packed row of the selected gaussian when it belongs to this viewport, else -1. */
  selectedIn(index) {
    const selected = this.model.get("selected");
    if (!selected || selected[0] !== index || !this.renderer) return -1;
    const map = this.renderer.clouds[index].index;
    return map ? map.indexOf(selected[1]) : selected[1];
  }

  describe() {
    const selected = this.model.get("selected");
    this.invalidate();
    if (!selected || !this.renderer) return this.say("");
    const [view, original] = selected;
    const row = this.selectedIn(view);
    const name = `gaussian ${original.toLocaleString("en")} of ${this.info.views[view].name}`;
    if (row < 0) return this.say(`${name}: not among those shown`);
    const { floats, base } = this.renderer.clouds[view];
    const list = (from, n) => Array.from(floats.subarray(12 * row + from, 12 * row + from + n), (v) => v.toPrecision(3));
    const opacity = (base[12 * row + 11] >>> 16) / 65535;
    return this.say(`${name} · opacity ${opacity.toFixed(2)} · scales ${list(3, 3).join(" ")} · at ${list(0, 3).join(" ")}`);
  }

  focusAt(index, x, y) {
    const found = this.pick(index, x, y);
    if (found >= 0) this.focusOn(index, found);
  }

  /** Bring a gaussian (or, with -1, the middle of the scene) to the centre of the picture and turn about it. */
  focusOn(index, row) {
    const port = this.ports[index];
    const floats = row >= 0 ? this.renderer.clouds[index].floats : null;
    const goal = floats ? Array.from(floats.subarray(12 * row, 12 * row + 3)) : this.info.views[index].center;
    const { camera } = port;
    const [right, down, forward] = cameraAxes(camera);
    const arm = add(goal, cameraEye(camera), -1);
    const depth = dot(arm, forward);
    if (depth <= 0) return;
    port.target = add(goal, add(scaled(right, dot(arm, right)), down, dot(arm, down)), -1);
    this.move(index, { x: (-dot(arm, right) * camera.K[0]) / depth, y: (-dot(arm, down) * camera.K[4]) / depth });
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
    const moving = this.ports.map((port) => this.advance(port, share)).some(Boolean);
    if (moving) this.adapt(gap);
    this.last = moving ? now : null;
    this.ports.forEach((port, view) => this.sorter.request(view, cameraAxes(port.camera)[2]));
    this.draw();
    if (this.unsynced) this.sync();
    if (moving) this.invalidate();
    else if (this.moving) this.rest();
    else if (this.sorter.settled && !this.ports.some((p) => p.dirty)) this.root.dataset.state = "ready";
  }

  /** Trade pixels for pace: weak devices stay smooth while the camera moves. */
  adapt(gap) {
    this.moving = true;
    clearTimeout(this.resting);
    this.resting = null;
    this.quick = gap < FAST_MS ? (this.quick ?? 0) + 1 : 0;
    if (gap > SLOW_MS) this.detail = Math.max(0.25, this.detail / 2);
    else if (this.quick > 30) {
      this.detail = Math.min(1, 2 * this.detail);
      this.quick = 0;
    }
  }

  rest() {
    this.resting ??= this.later(this.detail < 1 ? SHARPEN_MS : 0, () => {
      this.resting = null;
      this.moving = false;
      this.invalidate();
    });
  }

  crop() {
    const crop = this.model.get("crop");
    return { on: this.model.get("crop_on"), low: crop.map((p) => p[0]), high: crop.map((p) => p[1]) };
  }

  /** (floats, offset) -> whether that gaussian lies in the crop box. */
  cropTest() {
    const { on, low, high } = this.crop();
    const [a, b] = [low, high].map((corner) => corner.map(Math.fround)); // as the shader and Python compare
    return (floats, o) => !on || [0, 1, 2].every((k) => floats[o + k] >= a[k] && floats[o + k] <= b[k]);
  }

  draw(background) {
    if (!this.renderer || !this.ports[0].place || this.renderer.gl.isContextLost()) return;
    const detail = this.moving ? this.detail : 1;
    const look = {
      degree: this.model.get("sh_degree"), scale: this.model.get("splat_scale"),
      byValue: this.model.get("color_mode") === "value", crop: this.crop(), ratio: this.ratio * detail,
    };
    this.ports.forEach((port, view) => {
      if (port.dirty || port.detail !== detail) this.renderer.drawSplats(view, { ...look, camera: port.camera });
      port.dirty = false;
      port.detail = detail;
      this.annotate(port, view);
    });
    const fixed = this.info.background ? [...this.info.background, 1] : [0, 0, 0, 0];
    this.renderer.present(this.places(), background ?? fixed);
  }

  /** Rectangles of the viewports on the canvas, in its pixels. */
  places() {
    return this.ports.map(({ place: { x, y, w, h } }) => ({
      x: Math.round(x * this.ratio), y: Math.round(y * this.ratio),
      width: Math.round(w * this.ratio), height: Math.round(h * this.ratio),
    }));
  }

  annotate(port, view) {
    const row = this.selectedIn(view);
    const floats = row < 0 ? null : this.renderer.clouds[view].floats;
    const shown = floats !== null && this.cropTest()(floats, 12 * row);
    const seen = shown ? projectGaussian(port.camera, floats, row, 1) : null;
    const { x, y, w, h } = port.place;
    port.marker.hidden = seen === null || seen.x < 0 || seen.y < 0 || seen.x > w || seen.y > h;
    if (!port.marker.hidden) port.marker.style.transform = `translate(${x + seen.x}px, ${y + seen.y}px)`;
    port.axes.element.style.display = this.model.get("show_axes") ? "" : "none";
    port.axes.update(port.camera);
  }

  // ---- pictures --------------------------------------------------------------------------------------------------

  /** [PNG blob, canvas] of all viewports side by side on an opaque background, once nothing moves any more. */
  async snapshot() {
    while (this.root.dataset.state === "waiting" || this.root.dataset.state === "busy") {
      await new Promise((resolve) => this.later(20, resolve));
      if (this.closed) return [null, null];
    }
    if (this.root.dataset.state === "failed") return [null, null];
    const rgb = getComputedStyle(this.ports[0].surface).backgroundColor.match(/[\d.]+/g).map((v) => Number(v) / 255);
    this.draw([...(this.info.background ?? rgb.slice(0, 3)), 1]);
    const sheet = this.renderer.sheet(this.places(), this.columns, Math.round(GAP * this.ratio));
    this.draw();
    return [await new Promise((resolve) => sheet.toBlob(resolve, "image/png")), sheet];
  }

  async sendSnapshot(blob, id) {
    if (blob === null) return;
    const bytes = await blob.arrayBuffer();
    this.model.send({ type: "snapshot", id }, undefined, [new DataView(bytes)]);
  }

  async download() {
    const [blob] = await this.snapshot();
    if (blob === null) return;
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
    this.sorter?.close();
    this.renderer?.close();
    this.root.remove();
  }
}

export default () => {
  let load = null;
  return {
    initialize({ model }) {
      load = splatSource(model);
    },
    render({ model, el }) {
      const viewer = new SplatViewer(model, el, load);
      return () => viewer.close();
    },
  };
};
