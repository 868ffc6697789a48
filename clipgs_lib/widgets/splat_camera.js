// Camera arithmetic. A camera is {viewmat: 16 numbers, K: 9 numbers, width, height}, row-major as in Python:
// world -> camera, OpenCV axes (x right, y down, z forward), lengths of K in CSS pixels of its viewport.

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const add = (a, b, s = 1) => [a[0] + s * b[0], a[1] + s * b[1], a[2] + s * b[2]];
const scaled = (a, s) => [a[0] * s, a[1] * s, a[2] * s];
const unit = (a) => scaled(a, 1 / Math.max(Math.hypot(...a), 1e-30));
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const clamp = (v, low, high) => Math.min(high, Math.max(low, v));

/** Rows of the rotation: right, down, forward. */
const cameraAxes = (camera) => [0, 4, 8].map((i) => camera.viewmat.slice(i, i + 3));

function cameraEye(camera) {
  const [r, d, f] = cameraAxes(camera);
  const v = camera.viewmat;
  return scaled(add(add(scaled(r, v[3]), d, v[7]), f, v[11]), -1);
}

function viewmatFrom(eye, axes) {
  const forward = unit(axes[2]);
  const right = unit(cross(axes[1], forward)); // keeps the frame orthonormal over many small turns
  const down = cross(forward, right);
  return [right, down, forward].flatMap((a) => [...a, -dot(a, eye)]).concat([0, 0, 0, 1]);
}

function rotateAbout(vector, axis, angle) {
  const c = Math.cos(angle), s = Math.sin(angle);
  return add(add(scaled(vector, c), cross(axis, vector), s), axis, dot(axis, vector) * (1 - c));
}

/** Turn about `target`: yaw about `up`, pitch about the camera's right axis, stopping short of the poles. */
function orbitCamera(camera, target, up, yaw, pitch) {
  let axes = cameraAxes(camera);
  let arm = add(cameraEye(camera), target, -1);
  const polar = Math.acos(clamp(dot(axes[2], up), -1, 1));
  const upright = dot(axes[1], up) <= 0 ? 1 : -1;
  const tilt = upright * (polar - clamp(polar - upright * pitch, 0.03, Math.PI - 0.03));
  const right = axes[0];
  const turn = (v) => rotateAbout(rotateAbout(v, right, tilt), up, upright * yaw);
  axes = axes.map(turn);
  arm = turn(arm);
  return { ...camera, viewmat: viewmatFrom(add(target, arm), axes) };
}

/** Move camera and target sideways by (dx, dy) CSS pixels; returns [camera, target]. */
function panCamera(camera, target, dx, dy) {
  const [right, down, forward] = cameraAxes(camera);
  const eye = cameraEye(camera);
  const depth = Math.max(dot(add(target, eye, -1), forward), 1e-6);
  const shift = add(scaled(right, (-dx * depth) / camera.K[0]), down, (-dy * depth) / camera.K[4]);
  return [{ ...camera, viewmat: viewmatFrom(add(eye, shift), [right, down, forward]) }, add(target, shift)];
}

/** Change the distance to `target` by the factor exp(amount), within [near, far]. */
function dollyCamera(camera, target, amount, near, far) {
  const arm = add(cameraEye(camera), target, -1);
  const distance = Math.hypot(...arm);
  const goal = clamp(distance * Math.exp(amount), near, far);
  const eye = add(target, scaled(arm, goal / Math.max(distance, 1e-30)));
  return { ...camera, viewmat: viewmatFrom(eye, cameraAxes(camera)) };
}

/** The same view in a viewport of another size: scaled to fit, centred. */
function fitCamera(camera, width, height) {
  if (camera.width === width && camera.height === height) return camera;
  const s = Math.min(width / camera.width, height / camera.height);
  const K = camera.K.slice();
  K[0] *= s;
  K[1] *= s;
  K[4] *= s;
  K[2] = width / 2 + (K[2] - camera.width / 2) * s;
  K[5] = height / 2 + (K[5] - camera.height / 2) * s;
  return { ...camera, K, width, height };
}

/** The point on the view axis nearest to `center`: what the camera turns about after Python moved it. */
function orbitTarget(camera, center, radius) {
  const eye = cameraEye(camera);
  const forward = cameraAxes(camera)[2];
  return add(eye, forward, Math.max(dot(add(center, eye, -1), forward), 0.05 * radius));
}

function sameCamera(a, b) {
  const close = (p, q) => Math.abs(p - q) <= 1e-9 * Math.max(1, Math.abs(p));
  return a.width === b.width && a.height === b.height && a.viewmat.every((v, i) => close(v, b.viewmat[i])) &&
    a.K.every((v, i) => close(v, b.K[i]));
}

/** A point of the world in camera axes: right, down and forward of the eye. */
function cameraPoint({ viewmat: v }, p) {
  return [0, 4, 8].map((r) => v[r] * p[0] + v[r + 1] * p[1] + v[r + 2] * p[2] + v[r + 3]);
}

/** Where a point in camera axes is seen, CSS pixels. */
const pixelOf = ({ K }, [x, y, z]) => [(K[0] * x) / z + K[2], (K[4] * y) / z + K[5]];
