// WebGL2 renderer: one context for all viewports. Every splat lives in integer textures (layout: packing.py);
// each viewport is drawn into its own half-float target, back to front, then copied to its place on the canvas.

const TEXTURE_WIDTH = 2048;
const QUADS = 4096; // per instance: an instance of one quad costs some drivers more than its pixels

const VERTEX_SHADER = `#version 300 es
precision highp float;
precision highp int;
precision highp usampler2D;
uniform usampler2D uOrder, uBase, uSh, uValue;
uniform int uCount;
uniform sampler2D uColormap;
uniform mat3 uRotation;   // world -> camera
uniform vec3 uShift, uEye, uCropLow, uCropHigh;
uniform vec4 uK;          // fx fy cx cy, pixels of the target
uniform vec2 uSize;       // pixels of the target
uniform float uScale;     // size slider
uniform int uDegree, uShTexels;
uniform bool uCrop, uByValue;
flat out vec4 vColor;
flat out vec3 vFactor;    // Cholesky factor of the inverse covariance
flat out vec2 vCenter;

uvec4 texel(usampler2D source, int i) {
  return texelFetch(source, ivec2(i & ${TEXTURE_WIDTH - 1}, i / ${TEXTURE_WIDTH}), 0);
}

mat3 rotation(vec4 q) {  // wxyz, unit; columns are the local axes
  vec3 v = q.yzw, v2 = 2.0 * v, d = v * v2;
  vec3 w = q.x * v2, m = v.xxy * v2.yzz;  // m: 2xy, 2xz, 2yz
  return mat3(1.0 - d.y - d.z, m.x + w.z, m.y - w.y, m.x - w.z, 1.0 - d.x - d.z, m.z + w.x, m.y + w.y, m.z - w.x,
    1.0 - d.x - d.y);
}

vec3 shColor(int splat, vec3 d) {
  float c[48];
  for (int t = 0; t < uShTexels; t++) {
    uvec4 w = texel(uSh, splat * uShTexels + t);
    for (int k = 0; k < 4; k++) {
      vec2 pair = unpackHalf2x16(w[k]);
      c[8 * t + 2 * k] = pair.x;
      c[8 * t + 2 * k + 1] = pair.y;
    }
  }
#define SH(i) vec3(c[3 * i], c[3 * i + 1], c[3 * i + 2])
  float x = d.x, y = d.y, z = d.z;
  vec3 sum = ${SH_C1} * (z * SH(1) - y * SH(0) - x * SH(2));
  if (uDegree > 1) {
    float xx = x * x, yy = y * y, zz = z * z;
    sum += ${SH_C2[0]} * x * y * SH(3) + ${SH_C2[1]} * y * z * SH(4) + ${SH_C2[2]} * (2.0 * zz - xx - yy) * SH(5)
      + ${SH_C2[3]} * x * z * SH(6) + ${SH_C2[4]} * (xx - yy) * SH(7);
    if (uDegree > 2) {
      sum += ${SH_C3[0]} * y * (3.0 * xx - yy) * SH(8) + ${SH_C3[1]} * x * y * z * SH(9)
        + ${SH_C3[2]} * y * (4.0 * zz - xx - yy) * SH(10) + ${SH_C3[3]} * z * (2.0 * zz - 3.0 * (xx + yy)) * SH(11)
        + ${SH_C3[4]} * x * (4.0 * zz - xx - yy) * SH(12) + ${SH_C3[5]} * z * (xx - yy) * SH(13)
        + ${SH_C3[6]} * x * (xx - 3.0 * yy) * SH(14);
    }
  }
  return sum;
}

void main() {
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0);  // outside: nothing is drawn unless every test below passes
  int slot = gl_InstanceID * ${QUADS} + (gl_VertexID >> 2);
  if (slot >= uCount) return;
  int splat = int(texel(uOrder, slot).x);
  uvec4 third = texel(uBase, 3 * splat + 2);
  float opacity = unpackUnorm2x16(third.w).y;
  if (opacity < ${MIN_ALPHA}) return;
  vec4 first = uintBitsToFloat(texel(uBase, 3 * splat));
  vec3 mean = first.xyz;
  if (uCrop && (any(lessThan(mean, uCropLow)) || any(greaterThan(mean, uCropHigh)))) return;
  vec3 p = uRotation * mean + uShift;
  if (p.z < ${NEAR_PLANE}) return;
  vec4 second = uintBitsToFloat(texel(uBase, 3 * splat + 1));
  vec3 scales = uScale * vec3(first.w, second.xy);
  mat3 axes = rotation(vec4(second.zw, uintBitsToFloat(third.xy)));

  // EWA: rows of J W R S; the covariance is their Gram matrix plus the low-pass, its determinant free of cancellation.
  vec2 margin = 0.15 * uSize / uK.xy;
  vec2 t = clamp(p.xy / p.z, -uK.zw / uK.xy - margin, (uSize - uK.zw) / uK.xy + margin);
  vec3 u = (vec3(uK.x, 0.0, -uK.x * t.x) / p.z) * uRotation * axes * scales;
  vec3 v = (vec3(0.0, uK.y, -uK.y * t.y) / p.z) * uRotation * axes * scales;
  float uu = dot(u, u), vv = dot(v, v), b = dot(u, v);
  float a = uu + ${EPS_2D}, c = vv + ${EPS_2D};
  vec3 normal = cross(u, v);
  float det = dot(normal, normal) + ${EPS_2D} * (uu + c);
  vCenter = uK.xy * p.xy / p.z + uK.zw;
  vFactor = vec3(sqrt(c / det), -b / sqrt(det * c), inversesqrt(c));

  // The ellipse on which alpha falls to MIN_ALPHA, along the principal axes of the covariance.
  float middle = 0.5 * (a + c), spread = length(vec2(0.5 * (a - c), b));
  float long2 = middle + spread, short2 = det / long2;
  vec2 axis = abs(b) < 1e-6 * middle ? (a >= c ? vec2(1.0, 0.0) : vec2(0.0, 1.0)) : normalize(vec2(b, long2 - a));
  float reach = sqrt(2.0 * log(opacity / ${MIN_ALPHA})) * 1.001 + 0.001;
  vec2 extent = reach * (abs(axis) * sqrt(long2) + abs(axis.yx) * sqrt(short2));
  if (any(lessThan(vCenter + extent, vec2(0.0))) || any(greaterThan(vCenter - extent, uSize))) return;

  if (uByValue) {
    vColor = vec4(texelFetch(uColormap, ivec2(texel(uValue, splat).x, 0), 0).rgb, opacity);
  } else {
    vec3 color = vec3(unpackHalf2x16(third.z), unpackHalf2x16(third.w).x);
    if (uDegree > 0) color += shColor(splat, normalize(mean - uEye));
    vColor = vec4(max(color, 0.0), opacity);
  }
  vec2 corner = vec2(gl_VertexID & 1, (gl_VertexID >> 1) & 1) * 2.0 - 1.0;
  vec2 offset = reach * (corner.x * axis * sqrt(long2) + corner.y * vec2(-axis.y, axis.x) * sqrt(short2));
  gl_Position = vec4((vCenter + offset) / uSize * 2.0 - 1.0, 0.0, 1.0);  // row 0 of the target is the top of the image
}`;

const FRAGMENT_SHADER = `#version 300 es
precision highp float;
flat in vec4 vColor;
flat in vec3 vFactor;
flat in vec2 vCenter;
out vec4 outColor;
void main() {
  vec2 d = gl_FragCoord.xy - vCenter;
  vec2 q = vec2(vFactor.x * d.x + vFactor.y * d.y, vFactor.z * d.y);
  float alpha = min(${MAX_ALPHA}, vColor.a * exp(-0.5 * dot(q, q)));
  if (alpha < ${MIN_ALPHA}) discard;
  outColor = vec4(vColor.rgb * alpha, alpha);
}`;

const COPY_VERTEX_SHADER = `#version 300 es
void main() { gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0, 0.0, 1.0); }`;

const COPY_FRAGMENT_SHADER = `#version 300 es
precision highp float;
uniform sampler2D uTarget;
uniform ivec3 uPlace;      // left and bottom on the canvas, height
uniform vec4 uBackground;  // premultiplied
out vec4 outColor;
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy) - uPlace.xy;
  vec4 color = texelFetch(uTarget, ivec2(at.x, uPlace.z - 1 - at.y), 0);
  color += (1.0 - color.a) * uBackground;
  outColor = vec4(min(color.rgb, vec3(color.a)), color.a);
}`;

function compileProgram(gl, vertex, fragment) {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
    gl.deleteShader(shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
    const logs = gl.getAttachedShaders(program).map((s) => gl.getShaderInfoLog(s));
    throw new Error(`the splat shader was refused: ${gl.getProgramInfoLog(program)} ${logs.join(" ")}`);
  }
  const uniforms = {};
  const count = gl.isContextLost() ? 0 : gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS);
  for (let i = 0; i < count; i++) {
    const { name } = gl.getActiveUniform(program, i);
    uniforms[name] = gl.getUniformLocation(program, name);
  }
  return { program, uniforms };
}

class SplatRenderer {
  /** clouds: [{count, degree, base: Uint32Array, sh: Uint32Array, values: Uint8Array | null}] */
  constructor(canvas, onRestored) {
    this.canvas = canvas;
    this.clouds = [];
    this.colormap = new Uint8Array(4 * 256);
    this.gl = canvas.getContext("webgl2", { alpha: true, antialias: false, depth: false, premultipliedAlpha: true });
    if (!this.gl) throw new Error("this browser offers no WebGL2");
    this.onLost = (event) => event.preventDefault(); // asks the browser to give the context back
    this.onBack = () => {
      this.start();
      onRestored();
    };
    canvas.addEventListener("webglcontextlost", this.onLost);
    canvas.addEventListener("webglcontextrestored", this.onBack);
    this.start();
  }

  start() {
    const gl = this.gl;
    this.halfFloat = gl.getExtension("EXT_color_buffer_float") !== null;
    this.splatProgram = compileProgram(gl, VERTEX_SHADER, FRAGMENT_SHADER);
    this.copyProgram = compileProgram(gl, COPY_VERTEX_SHADER, COPY_FRAGMENT_SHADER);
    this.empty = gl.createVertexArray();
    this.quads = gl.createVertexArray();
    gl.bindVertexArray(this.quads);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    const corners = Uint16Array.from({ length: 6 * QUADS }, (_, i) => 4 * Math.floor(i / 6) + [0, 1, 2, 2, 1, 3][i % 6]);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, corners, gl.STATIC_DRAW);
    gl.bindVertexArray(null);
    this.blank = this.texture(gl.RGBA32UI, gl.RGBA_INTEGER, gl.UNSIGNED_INT, new Uint32Array(4), 4);
    this.blankValue = this.texture(gl.R8UI, gl.RED_INTEGER, gl.UNSIGNED_BYTE, new Uint8Array(1), 1);
    this.colormapTexture = this.texture(gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, this.colormap, 4);
    this.parts = this.clouds.map((cloud) => this.upload(cloud));
  }

  /** A texture TEXTURE_WIDTH texels wide (or narrower when it is one row) holding `data`; the last row may be short. */
  texture(internal, format, type, data, channels) {
    const gl = this.gl;
    const texels = data.length / channels;
    const width = Math.min(texels, TEXTURE_WIDTH), height = Math.max(1, Math.ceil(texels / TEXTURE_WIDTH));
    if (height > gl.getParameter(gl.MAX_TEXTURE_SIZE)) {
      throw new Error(`these splats need a texture of ${height} rows, more than this device has; lower max_gaussians`);
    }
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texStorage2D(gl.TEXTURE_2D, 1, internal, width, height);
    for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) {
      gl.texParameteri(gl.TEXTURE_2D, side, gl.NEAREST);
    }
    this.fill(texture, format, type, data, channels);
    return texture;
  }

  fill(texture, format, type, data, channels) {
    const gl = this.gl;
    const texels = data.length / channels;
    const width = Math.min(texels, TEXTURE_WIDTH);
    const rows = Math.floor(texels / width), rest = texels - rows * width;
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, width, rows, format, type, data);
    if (rest > 0) {
      gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, rows, rest, 1, format, type, data.subarray(rows * width * channels));
    }
  }

  upload(cloud) {
    const gl = this.gl;
    const integers = (data) => this.texture(gl.RGBA32UI, gl.RGBA_INTEGER, gl.UNSIGNED_INT, data, 4);
    const part = { base: integers(cloud.base), sh: cloud.sh.length ? integers(cloud.sh) : null, values: null };
    if (cloud.values) part.values = this.texture(gl.R8UI, gl.RED_INTEGER, gl.UNSIGNED_BYTE, cloud.values, 1);
    part.order = this.texture(gl.R32UI, gl.RED_INTEGER, gl.UNSIGNED_INT, cloud.order ?? new Uint32Array(cloud.count), 1);
    part.sorted = Boolean(cloud.order);
    return part;
  }

  load(clouds) {
    this.clouds = clouds;
    this.parts = clouds.map((cloud) => this.upload(cloud));
  }

  setValues(view, values) {
    const gl = this.gl;
    this.clouds[view].values = values;
    const part = this.parts[view];
    if (part.values) gl.deleteTexture(part.values);
    part.values = values ? this.texture(gl.R8UI, gl.RED_INTEGER, gl.UNSIGNED_BYTE, values, 1) : null;
  }

  setColormap(rgba) {
    const gl = this.gl;
    this.colormap = rgba;
    gl.deleteTexture(this.colormapTexture);
    this.colormapTexture = this.texture(gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, rgba, 4);
  }

  setOrder(view, order) {
    const gl = this.gl, part = this.parts[view];
    this.clouds[view].order = order; // kept for a restored context
    this.fill(part.order, gl.RED_INTEGER, gl.UNSIGNED_INT, order, 1);
    part.sorted = true;
  }

  /** The off-screen target of a viewport: half floats, because 8 bits lose many faint layers. */
  target(part, width, height) {
    const gl = this.gl;
    if (part.target && part.target.width === width && part.target.height === height) return part.target;
    if (part.target) {
      gl.deleteTexture(part.target.texture);
      gl.deleteFramebuffer(part.target.frame);
    }
    const texture = gl.createTexture(), frame = gl.createFramebuffer();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texStorage2D(gl.TEXTURE_2D, 1, this.halfFloat ? gl.RGBA16F : gl.RGBA8, width, height);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
    part.target = { texture, frame, width, height };
    return part.target;
  }

  /** Draw one viewport into its target. look: {camera, degree, scale, byValue, crop: {on, low, high}, ratio}. */
  drawSplats(view, look) {
    const gl = this.gl, part = this.parts[view], cloud = this.clouds[view];
    const { camera, ratio } = look;
    const width = Math.round(camera.width * ratio), height = Math.round(camera.height * ratio);
    const target = this.target(part, width, height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.frame);
    gl.disable(gl.SCISSOR_TEST);
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    if (!part.sorted) return;
    const { program, uniforms } = this.splatProgram;
    const v = camera.viewmat, K = camera.K;
    const degree = Math.min(look.degree, cloud.degree);
    const textures = [
      part.order, part.base, part.sh ?? this.blank, part.values ?? this.blankValue, this.colormapTexture,
    ];
    gl.useProgram(program);
    ["uOrder", "uBase", "uSh", "uValue", "uColormap"].forEach((name, unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, textures[unit]);
      gl.uniform1i(uniforms[name], unit);
    });
    gl.activeTexture(gl.TEXTURE0);
    gl.uniformMatrix3fv(uniforms.uRotation, false, [v[0], v[4], v[8], v[1], v[5], v[9], v[2], v[6], v[10]]);
    gl.uniform3f(uniforms.uShift, v[3], v[7], v[11]);
    gl.uniform3fv(uniforms.uEye, cameraEye(camera));
    gl.uniform4f(uniforms.uK, K[0] * ratio, K[4] * ratio, K[2] * ratio, K[5] * ratio);
    gl.uniform2f(uniforms.uSize, width, height);
    gl.uniform1f(uniforms.uScale, look.scale);
    gl.uniform1i(uniforms.uCount, cloud.count);
    gl.uniform1i(uniforms.uDegree, degree);
    gl.uniform1i(uniforms.uShTexels, cloud.shTexels);
    gl.uniform1i(uniforms.uByValue, look.byValue && part.values ? 1 : 0);
    gl.uniform1i(uniforms.uCrop, look.crop.on ? 1 : 0);
    gl.uniform3fv(uniforms.uCropLow, look.crop.low);
    gl.uniform3fv(uniforms.uCropHigh, look.crop.high);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.bindVertexArray(this.quads);
    const quads = Math.min(QUADS, cloud.count), instances = Math.ceil(cloud.count / QUADS);
    gl.drawElementsInstanced(gl.TRIANGLES, 6 * quads, gl.UNSIGNED_SHORT, 0, instances);
    gl.bindVertexArray(null);
    gl.disable(gl.BLEND);
  }

  /** Copy all targets to the canvas. places: [{x, y, width, height}] in canvas pixels from the top left. */
  present(places, background) {
    const gl = this.gl;
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.disable(gl.SCISSOR_TEST);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.enable(gl.SCISSOR_TEST);
    gl.useProgram(this.copyProgram.program);
    gl.bindVertexArray(this.empty);
    gl.uniform1i(this.copyProgram.uniforms.uTarget, 0);
    gl.uniform4fv(this.copyProgram.uniforms.uBackground, background);
    places.forEach(({ x, y, width, height }, view) => {
      const bottom = this.canvas.height - y - height;
      gl.viewport(x, bottom, width, height);
      gl.scissor(x, bottom, width, height);
      gl.bindTexture(gl.TEXTURE_2D, this.parts[view].target.texture);
      gl.uniform3i(this.copyProgram.uniforms.uPlace, x, bottom, height);
      gl.drawArrays(gl.TRIANGLES, 0, 3);
    });
    gl.bindVertexArray(null);
  }

  close() {
    this.canvas.removeEventListener("webglcontextlost", this.onLost);
    this.canvas.removeEventListener("webglcontextrestored", this.onBack);
    this.gl.getExtension("WEBGL_lose_context")?.loseContext(); // browsers keep about 16
  }
}
