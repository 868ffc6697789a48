// Pixels for pace: weak devices draw fewer while the camera moves, so that they stay smooth, and all of them at rest.

const SLOW_MS = 90, FAST_MS = 24; // between frames: coarser pixels above the one, finer below the other
const SHARPEN_MS = 120; // at rest this long: full pixels again

class Pace {
  /** later(ms, action) -> timer; onRest() is called once the motion is over and full pixels are due. */
  constructor(later, onRest) {
    this.later = later;
    this.onRest = onRest;
    this.moving = false;
    this.coarse = 1; // pixels drawn per screen pixel, each way, while moving
    this.quick = 0; // fast frames in a row
    this.timer = null;
  }

  get detail() {
    return this.moving ? this.coarse : 1;
  }

  /** A frame in motion came `gap` milliseconds after the one before. */
  move(gap) {
    this.moving = true;
    clearTimeout(this.timer);
    this.timer = null;
    this.quick = gap < FAST_MS ? this.quick + 1 : 0;
    if (gap > SLOW_MS) this.coarse = Math.max(0.25, this.coarse / 2);
    else if (this.quick > 30) {
      this.coarse = Math.min(1, 2 * this.coarse);
      this.quick = 0;
    }
  }

  rest() {
    this.timer ??= this.later(this.coarse < 1 ? SHARPEN_MS : 0, () => {
      this.timer = null;
      this.moving = false;
      this.onRest();
    });
  }
}
