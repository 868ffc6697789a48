// One viewport: its part of the page, its camera, and the motion that is still to be played out.

const GAP = 8, HEADER = 24; // CSS pixels, whole numbers so that viewports lie on pixels

/** Whole CSS pixels for every viewport: as wide as asked, or as fit a full `screen` of so many pixels down. */
function arrange(available, info, count, screen = null) {
  const fits = (n) => Math.floor((available - GAP * (n - 1)) / n);
  const shape = info.height / info.width;
  let columns = Math.min(info.columns, count);
  while (columns > 1 && fits(columns) < Math.min(info.width, 160)) columns--;
  const rows = Math.ceil(count / columns);
  const most = screen === null ? info.width : Math.floor((screen / rows - HEADER - GAP) / shape);
  const w = Math.max(16, Math.min(most, fits(columns)));
  const h = Math.max(16, Math.round(w * shape));
  const places = Array.from({ length: count }, (_, i) => (
    { x: (i % columns) * (w + GAP), y: Math.floor(i / columns) * (HEADER + h + GAP) + HEADER, w, h }));
  return { columns, places, width: columns * (w + GAP) - GAP, height: places[count - 1].y + h };
}

class Viewport {
  /** view: {name, note, center, radius, home} as Python sends it; up: unit vector; handlers: see listenToViewport. */
  constructor(view, up, handlers) {
    this.view = view;
    this.up = up;
    const header = make("div", { className: "sv-header" }, make("b", {}, view.name), make("span", {}, view.note));
    header.title = `${view.name} ${view.note}`;
    this.surface = make("div", { className: "sv-surface", tabIndex: 0, role: "application" });
    this.surface.setAttribute("aria-label", `3D view of ${view.name}, ${view.note}; press ? for help`);
    this.cell = make("div", { className: "sv-cell" }, header, this.surface);
    this.marker = make("div", { className: "sv-marker", hidden: true });
    this.box = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.edges = this.box.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "path"));
    listenToViewport(this.surface, handlers);
    this.pending = stillMotion();
    this.camera = null;
    this.target = null; // what the camera turns about
    this.place = null; // {x, y, w, h} within the grid, CSS pixels
    this.dirty = true;
  }

  /** Take a background, RGB in 0..1; with null the page's own, or a grey where the splat would vanish in that. */
  lieOn(background) {
    const css = (rgb) => `rgb(${rgb.map((c) => Math.round(255 * c)).join(",")})`;
    this.surface.style.background = background ? css(background) : "";
    const seen = () => getComputedStyle(this.surface).backgroundColor.match(/[\d.]+/g)?.map((v) => v / 255) ?? [1, 1, 1];
    const page = dot(LUMA, seen()), { dark, light } = this.view;
    if (!background && ((dark && page < 0.3) || (light && page > 0.9))) this.surface.style.background = css(VANISHING);
    this.background = seen().slice(0, 3);
  }

  /** Lie at a place of the grid; true when the camera had to be scaled for it. */
  lay(place) {
    this.place = place;
    this.surface.style.height = `${place.h}px`;
    const fitted = fitCamera(this.camera, place.w, place.h);
    const changed = fitted !== this.camera;
    this.camera = fitted;
    this.dirty = true;
    return changed;
  }

  /** Take a camera, scaled to this viewport, and drop the pending motion. */
  look(camera, target) {
    this.camera = this.place ? fitCamera(camera, this.place.w, this.place.h) : camera;
    this.target = target;
    this.pending = stillMotion();
    this.dirty = true;
  }

  /** Take the pose of another viewport. */
  follow({ camera, target }) {
    this.camera = { ...this.camera, viewmat: camera.viewmat };
    this.target = target;
    this.dirty = true;
  }

  push(motion) {
    for (const [name, amount] of Object.entries(motion)) this.pending[name] += amount;
  }

  /** How much motion is pending, roughly in radians. */
  get unrest() {
    const { yaw, pitch, zoom, x, y } = this.pending;
    return Math.abs(yaw) + Math.abs(pitch) + Math.abs(zoom) + (Math.abs(x) + Math.abs(y)) / 300;
  }

  /** Play out a share of the pending motion; true while some is left. */
  advance(share) {
    const p = this.pending, { radius } = this.view;
    const part = this.unrest < 1e-3 ? 1 : share;
    if (p.yaw || p.pitch) this.camera = orbitCamera(this.camera, this.target, this.up, part * p.yaw, part * p.pitch);
    if (p.x || p.y) [this.camera, this.target] = panCamera(this.camera, this.target, part * p.x, part * p.y);
    if (p.zoom) this.camera = dollyCamera(this.camera, this.target, part * p.zoom, 0.01 * radius, 1000 * radius);
    for (const name of Object.keys(p)) p[name] *= 1 - part;
    this.dirty = true;
    return part < 1;
  }

  /** Bring a point to the centre of the picture and turn about it from then on. */
  focus(point) {
    const [right, down, forward] = cameraAxes(this.camera);
    const arm = add(point, cameraEye(this.camera), -1);
    const depth = dot(arm, forward);
    if (depth <= 0) return;
    const { K } = this.camera;
    this.target = add(point, add(scaled(right, dot(arm, right)), down, dot(arm, down)), -1);
    this.push({ x: (-dot(arm, right) * K[0]) / depth, y: (-dot(arm, down) * K[4]) / depth });
  }

  /** Show the edges of a crop box over the picture. */
  outline({ on, low, high }) {
    const { x, y, w, h } = this.place;
    this.box.setAttribute("style", `left:${x}px;top:${y}px;width:${w}px;height:${h}px`);
    const corner = (c) => [0, 1, 2].map((k) => (c & (1 << k) ? high : low)[k]);
    const corners = Array.from({ length: 8 }, (_, c) => cameraPoint(this.camera, corner(c)));
    const seen = (p) => pixelOf(this.camera, p).map((v) => v.toFixed(2)).join(" ");
    const lines = [];
    for (let c = 0; on && c < 8; c++) {
      for (const bit of [1, 2, 4].filter((one) => !(c & one))) {
        let [near, far] = [corners[c], corners[c | bit]].sort((a, b) => a[2] - b[2]);
        if (far[2] < NEAR_PLANE) continue;
        if (near[2] < NEAR_PLANE) near = add(far, add(near, far, -1), (far[2] - NEAR_PLANE) / (far[2] - near[2]));
        lines.push(`M ${seen(near)} L ${seen(far)}`);
      }
    }
    this.edges.setAttribute("d", lines.join(" "));
  }

  /** Put the marker on a point of the world, or away when that is null or out of sight. */
  mark(point) {
    const seen = point && cameraPoint(this.camera, point);
    const [u, v] = seen ? pixelOf(this.camera, seen) : [0, 0];
    const { x, y, w, h } = this.place;
    this.marker.hidden = !seen || seen[2] < NEAR_PLANE || u < 0 || v < 0 || u > w || v > h;
    this.marker.style.transform = `translate(${x + u}px, ${y + v}px)`;
  }
}
