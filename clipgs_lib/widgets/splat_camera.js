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

/**
 * EWA projection of one gaussian, as the shader and Python's rasteriser do it.
 * `base` is the packed splat as Float32Array (12 words per gaussian, see wire.py), `size` multiplies the scales.
 * Returns null when it is too near, else {x, y, depth, factor} in CSS pixels; factor [a, b, c] gives
 * sigma = ((a dx + b dy)^2 + (c dy)^2) / 2.
 */
function projectGaussian(camera, base, index, size) {
  const o = index * 12;
  const v = camera.viewmat, K = camera.K;
  const at = (r) => v[r] * base[o] + v[r + 1] * base[o + 1] + v[r + 2] * base[o + 2] + v[r + 3];
  const z = at(8);
  if (!(z >= NEAR_PLANE)) return null;
  const x = at(0), y = at(4), fx = K[0], fy = K[4], cx = K[2], cy = K[5];
  const marginX = (0.15 * camera.width) / fx, marginY = (0.15 * camera.height) / fy;
  const tx = clamp(x / z, -cx / fx - marginX, (camera.width - cx) / fx + marginX);
  const ty = clamp(y / z, -cy / fy - marginY, (camera.height - cy) / fy + marginY);
  const [qw, qx, qy, qz] = base.subarray(o + 6, o + 10);
  const local = [
    [1 - 2 * (qy * qy + qz * qz), 2 * (qx * qy + qw * qz), 2 * (qx * qz - qw * qy)],
    [2 * (qx * qy - qw * qz), 1 - 2 * (qx * qx + qz * qz), 2 * (qy * qz + qw * qx)],
    [2 * (qx * qz + qw * qy), 2 * (qy * qz - qw * qx), 1 - 2 * (qx * qx + qy * qy)],
  ];
  const [right, down, forward] = cameraAxes(camera);
  const row = (axis, focal, t) => {
    const seen = scaled(add(axis, forward, -t), focal / z);
    return local.map((l, i) => size * base[o + 3 + i] * dot(l, seen));
  };
  const p = row(right, fx, tx), q = row(down, fy, ty);
  const pp = dot(p, p), b = dot(p, q), c = dot(q, q) + EPS_2D;
  const normal = cross(p, q);
  const det = dot(normal, normal) + EPS_2D * (pp + c);
  const factor = [Math.sqrt(c / det), -b / Math.sqrt(det * c), 1 / Math.sqrt(c)];
  return { x: (fx * x) / z + cx, y: (fy * y) / z + cy, depth: z, factor };
}

/** Index of the nearest gaussian whose alpha at the pixel (px, py) is at least PICK_ALPHA, or -1. */
function pickGaussian(camera, cloud, px, py, size, inCrop) {
  let best = -1, bestDepth = Infinity;
  for (let i = 0; i < cloud.count; i++) {
    const opacity = opacityOf(cloud, i);
    if (opacity < PICK_ALPHA || !inCrop(cloud, i)) continue;
    const g = projectGaussian(camera, cloud.floats, i, size);
    if (g === null || g.depth >= bestDepth) continue;
    const dx = g.x - px, dy = g.y - py;
    const u = g.factor[0] * dx + g.factor[1] * dy, v = g.factor[2] * dy;
    if (opacity * Math.exp(-0.5 * (u * u + v * v)) >= PICK_ALPHA) {
      best = i;
      bestDepth = g.depth;
    }
  }
  return best;
}
