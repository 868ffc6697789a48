// Mouse, touch, wheel and keyboard on one viewport. All motion is added to `pending` and played out over a few
// frames, which damps it a little: {yaw, pitch} radians, {x, y} CSS pixels of panning, {zoom} log distance.

const stillMotion = () => ({ yaw: 0, pitch: 0, x: 0, y: 0, zoom: 0 });
const DRAG_RADIANS = 0.008; // per CSS pixel
const CLICK_SLOP = 4; // CSS pixels a click may wander

/** handlers: {move(motion), click(x, y), focus(x, y), key(event) -> handled}; returns nothing, listeners die with el. */
function listenToViewport(surface, handlers) {
  const pointers = new Map();
  let travelled = 0, panning = false;
  const place = (event) => {
    const box = surface.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  surface.addEventListener("pointerdown", (event) => {
    surface.focus({ preventScroll: true });
    surface.setPointerCapture(event.pointerId);
    if (pointers.size === 0) travelled = 0;
    panning = event.button === 2 || event.button === 1 || event.shiftKey;
    pointers.set(event.pointerId, place(event));
    event.preventDefault();
  });
  surface.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const now = place(event);
    const dx = now[0] - before[0], dy = now[1] - before[1];
    travelled += Math.abs(dx) + Math.abs(dy);
    if (pointers.size === 2) {
      const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, p]) => p);
      const reach = (p) => Math.max(Math.hypot(p[0] - other[0], p[1] - other[1]), 1);
      handlers.move({ x: dx / 2, y: dy / 2, zoom: Math.log(reach(before) / reach(now)) });
    } else if (travelled > CLICK_SLOP) {
      handlers.move(panning ? { x: dx, y: dy } : { yaw: -dx * DRAG_RADIANS, pitch: -dy * DRAG_RADIANS });
    }
    pointers.set(event.pointerId, now);
  });
  const release = (event) => {
    if (!pointers.delete(event.pointerId)) return;
    if (event.type === "pointerup" && event.button === 0 && travelled <= CLICK_SLOP) handlers.click(...place(event));
  };
  surface.addEventListener("pointerup", release);
  surface.addEventListener("pointercancel", release);
  surface.addEventListener("dblclick", (event) => handlers.focus(...place(event)));
  surface.addEventListener("contextmenu", (event) => {
    event.preventDefault();
    event.stopPropagation();
  });
  surface.addEventListener("wheel", (event) => {
    event.preventDefault(); // the page must not scroll
    const unit = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1;
    handlers.move({ zoom: clamp(event.deltaY * unit, -200, 200) * (event.ctrlKey ? 0.01 : 0.0015) });
  }, { passive: false });
  surface.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (handlers.key(event)) {
      event.preventDefault();
      event.stopPropagation();
    }
  });
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** The motion that a key asks for, or null. */
function keyMotion(event, camera) {
  const arrow = ARROWS[event.key];
  if (arrow && event.shiftKey) return { x: -arrow[0] * 0.05 * camera.width, y: -arrow[1] * 0.05 * camera.height };
  if (arrow) return { yaw: arrow[0] * (Math.PI / 18), pitch: arrow[1] * (Math.PI / 18) };
  if (event.key === "+" || event.key === "=") return { zoom: -0.15 };
  if (event.key === "-" || event.key === "_") return { zoom: 0.15 };
  return null;
}
