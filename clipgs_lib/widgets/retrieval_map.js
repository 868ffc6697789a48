// Where the objects of a gallery lie: points that can be pointed at, opened, and chosen with a lasso.

const MAP_HEIGHT = 260, MARGIN = 10, NEAR = 8; // CSS pixels

class EmbeddingMap {
  /** actions: open(row), lasso(rows), hover(row or -1). */
  constructor(element, actions) {
    this.canvas = make("canvas", { role: "img", "aria-label": "map of the objects; drag around some to search only them" });
    element.append(this.canvas, make("div", { className: "re-status" },
      "Similar objects lie close; the better one fits, the clearer its point. Click one, or drag around some."));
    Object.assign(this, { actions, places: [], spots: [], hits: [], scores: null, pointed: -1, line: [] });
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.line = [[event.offsetX, event.offsetY]];
    });
    this.canvas.addEventListener("pointermove", ({ offsetX, offsetY }) => {
      if (this.line.length) return this.show({ line: [...this.line, [offsetX, offsetY]] });
      const pointed = this.nearest(offsetX, offsetY);
      if (pointed !== this.pointed) actions.hover(pointed);
      return this.show({ pointed });
    });
    this.canvas.addEventListener("pointerup", () => this.drop());
    this.resizing = new ResizeObserver(() => this.show({}));
    this.resizing.observe(element);
    this.unwatch = watchColors(() => this.show({}));
  }

  /** changes: places (float32 x, y in [-1, 1] of each object), hits (rows), scores (float32, of each), pointed (row). */
  show(changes) {
    Object.assign(this, changes);
    const width = this.canvas.clientWidth, ratio = window.devicePixelRatio || 1, paint = this.canvas.getContext("2d");
    if (!width || !this.places.byteLength) return;
    this.spots = Array.from({ length: this.places.byteLength / 8 }, (_, row) => [
      MARGIN + (this.places.getFloat32(8 * row, true) + 1) * (width / 2 - MARGIN),
      MARGIN + (1 - this.places.getFloat32(8 * row + 4, true)) * (MAP_HEIGHT / 2 - MARGIN)]);
    this.canvas.width = width * ratio;
    this.canvas.height = MAP_HEIGHT * ratio;
    paint.scale(ratio, ratio);
    const color = (name) => getComputedStyle(this.canvas).getPropertyValue(name);
    const dot = (row, radius) => {
      paint.beginPath();
      paint.arc(...this.spots[row], radius, 0, 2 * Math.PI);
      return paint;
    };
    paint.fillStyle = color("--cg-text");
    const known = this.scores?.byteLength === 4 * this.spots.length;
    this.spots.forEach((_, row) => {
      const score = known ? this.scores.getFloat32(4 * row, true) : 0;
      paint.globalAlpha = 0.12 + 0.7 * Math.min(1, Math.max(0, score / 4));
      dot(row, 2.2).fill();
    });
    paint.globalAlpha = 1;
    paint.fillStyle = paint.strokeStyle = color("--cg-accent");
    for (const row of this.hits) dot(row, 3.5).fill();
    if (this.pointed in this.spots) dot(this.pointed, 7).stroke();
    paint.stroke(this.path());
  }

  path() {
    const path = new Path2D();
    this.line.forEach((spot) => path.lineTo(...spot));
    return path;
  }

  nearest(x, y) {
    const far = this.spots.map((spot) => Math.hypot(spot[0] - x, spot[1] - y)), least = Math.min(...far);
    return least < NEAR ? far.indexOf(least) : -1;
  }

  /** Open what was clicked, or search among what was circled. */
  drop() {
    const [start] = this.line, path = this.path(), paint = this.canvas.getContext("2d");
    const moved = this.line.some(([x, y]) => Math.hypot(x - start[0], y - start[1]) > 4);
    this.show({ line: [] });
    paint.resetTransform();
    const inside = this.spots.flatMap((spot, row) => (paint.isPointInPath(path, ...spot) ? [row] : []));
    if (!moved && this.nearest(...start) >= 0) this.actions.open(this.nearest(...start));
    else if (moved && inside.length) this.actions.lasso(inside);
  }

  close() {
    this.resizing.disconnect();
    this.unwatch();
  }
}
