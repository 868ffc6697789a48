// WebGL2 renderer: one context for all viewports. Every splat lives in integer textures (layout: wire.py);
// each viewport is drawn into its own half-float target, back to front, then copied to its place on the canvas.

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
    this.projectProgram = compileProgram(gl, FULL_VERTEX_SHADER, PROJECT_SHADER);
    this.splatProgram = compileProgram(gl, VERTEX_SHADER, FRAGMENT_SHADER);
    this.copyProgram = compileProgram(gl, FULL_VERTEX_SHADER, COPY_FRAGMENT_SHADER);
    this.empty = gl.createVertexArray();
    this.blank = this.texture(gl.RGBA32UI, gl.RGBA_INTEGER, gl.UNSIGNED_INT, new Uint32Array(4), 4);
    this.blankValue = this.bytes(new Uint8Array(1));
    this.colormapTexture = this.texture(gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, this.colormap, 4);
    if (this.clouds.length) this.load(this.clouds);
  }

  /** A texture TEXTURE_WIDTH texels wide (or narrower when it is one row) holding `data`; the last row may be short. */
  texture(internal, format, type, data, channels) {
    const gl = this.gl;
    const texels = data.length / channels;
    const width = Math.min(texels, TEXTURE_WIDTH), height = Math.max(1, Math.ceil(texels / TEXTURE_WIDTH));
    if (height > gl.getParameter(gl.MAX_TEXTURE_SIZE)) {
      throw new Error(`these splats need a texture of ${height} rows, more than this device has; lower max_gaussians`);
    }
    const texture = this.blankTexture(internal, width, height);
    this.fill(texture, format, type, data, channels);
    return texture;
  }

  blankTexture(internal, width, height, filter = this.gl.NEAREST) {
    const gl = this.gl, texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texStorage2D(gl.TEXTURE_2D, 1, internal, width, height);
    for (const [name, value] of [
      [gl.TEXTURE_MIN_FILTER, filter], [gl.TEXTURE_MAG_FILTER, filter],
      [gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE], [gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE],
    ]) gl.texParameteri(gl.TEXTURE_2D, name, value);
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

  bytes(data) {
    return this.texture(this.gl.R8UI, this.gl.RED_INTEGER, this.gl.UNSIGNED_BYTE, data, 1);
  }

  upload(cloud) {
    const gl = this.gl;
    const integers = (data) => this.texture(gl.RGBA32UI, gl.RGBA_INTEGER, gl.UNSIGNED_INT, data, 4);
    const part = { base: integers(cloud.base), sh: cloud.sh.length ? integers(cloud.sh) : null };
    part.values = cloud.values && this.bytes(cloud.values);
    part.order = this.texture(gl.R32UI, gl.RED_INTEGER, gl.UNSIGNED_INT, cloud.order ?? new Uint32Array(cloud.count), 1);
    part.sorted = Boolean(cloud.order);
    return part;
  }

  load(clouds) {
    this.clouds = clouds;
    this.parts = clouds.map((cloud) => this.upload(cloud));
    this.projected = this.projectionTarget(Math.max(...clouds.map((cloud) => cloud.count)));
  }

  /** Where the first pass writes: three integer textures with a texel per gaussian, shared by all viewports. */
  projectionTarget(count) {
    const gl = this.gl, frame = gl.createFramebuffer(), rows = Math.ceil(count / TEXTURE_WIDTH);
    gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
    const textures = [0, 1, 2].map((k) => {
      const texture = this.blankTexture(gl.RGBA32UI, TEXTURE_WIDTH, rows);
      gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0 + k, gl.TEXTURE_2D, texture, 0);
      return texture;
    });
    gl.drawBuffers([gl.COLOR_ATTACHMENT0, gl.COLOR_ATTACHMENT1, gl.COLOR_ATTACHMENT2]);
    return { frame, textures };
  }

  bindTextures(uniforms, textures) {
    const gl = this.gl;
    Object.entries(textures).forEach(([name, texture], unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.uniform1i(uniforms[name], unit);
    });
    gl.activeTexture(gl.TEXTURE0);
  }

  setValues(view, values) {
    const gl = this.gl;
    this.clouds[view].values = values;
    const part = this.parts[view];
    if (part.values) gl.deleteTexture(part.values);
    part.values = this.bytes(values);
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
    const frame = gl.createFramebuffer();
    const texture = this.blankTexture(this.halfFloat ? gl.RGBA16F : gl.RGBA8, width, height, gl.LINEAR);
    gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
    part.target = { texture, frame, width, height };
    return part.target;
  }

  targetSize({ camera, ratio }) {
    return [camera.width, camera.height].map((length) => Math.max(1, Math.round(length * ratio)));
  }

  /** Draw one viewport into its target. look: {camera, degree, scale, byValue, crop: {on, low, high}, ratio}. */
  drawSplats(view, look) {
    const gl = this.gl, part = this.parts[view], cloud = this.clouds[view];
    const [width, height] = this.targetSize(look);
    const target = this.target(part, width, height);
    if (part.sorted) this.project(view, look);
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.frame);
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    if (!part.sorted) return;
    const { program, uniforms } = this.splatProgram;
    const [uPlaces, uShapes, uColors] = this.projected.textures;
    gl.useProgram(program);
    this.bindTextures(uniforms, { uOrder: part.order, uPlaces, uShapes, uColors });
    gl.uniform2f(uniforms.uSize, width, height);
    gl.uniform1i(uniforms.uCount, cloud.count);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.bindVertexArray(this.empty);
    const batch = Math.min(BATCH, cloud.count);
    gl.drawArraysInstanced(gl.TRIANGLES, 0, 3 * batch, Math.ceil(cloud.count / BATCH));
    gl.bindVertexArray(null);
    gl.disable(gl.BLEND);
  }

  /** First pass: project the gaussians of one splat. */
  project(view, look) {
    const gl = this.gl, part = this.parts[view], cloud = this.clouds[view];
    const { program, uniforms } = this.projectProgram;
    const { camera, ratio } = look;
    const v = camera.viewmat, K = camera.K;
    gl.disable(gl.SCISSOR_TEST);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.projected.frame);
    gl.viewport(0, 0, TEXTURE_WIDTH, Math.ceil(cloud.count / TEXTURE_WIDTH));
    gl.useProgram(program);
    this.bindTextures(uniforms, {
      uBase: part.base, uSh: part.sh ?? this.blank, uValue: part.values ?? this.blankValue,
      uColormap: this.colormapTexture,
    });
    gl.uniformMatrix3fv(uniforms.uRotation, false, [v[0], v[4], v[8], v[1], v[5], v[9], v[2], v[6], v[10]]);
    gl.uniform3f(uniforms.uShift, v[3], v[7], v[11]);
    gl.uniform3fv(uniforms.uEye, cameraEye(camera));
    gl.uniform4f(uniforms.uK, K[0] * ratio, K[4] * ratio, K[2] * ratio, K[5] * ratio);
    gl.uniform2fv(uniforms.uSize, this.targetSize(look));
    gl.uniform1f(uniforms.uScale, look.scale);
    gl.uniform1i(uniforms.uCount, cloud.count);
    gl.uniform1i(uniforms.uDegree, Math.min(look.degree, cloud.degree));
    gl.uniform1i(uniforms.uShTexels, cloud.shTexels);
    gl.uniform1i(uniforms.uByValue, look.byValue && part.values ? 1 : 0);
    gl.uniform1i(uniforms.uCrop, look.crop.on ? 1 : 0);
    gl.uniform3fv(uniforms.uCropLow, look.crop.low);
    gl.uniform3fv(uniforms.uCropHigh, look.crop.high);
    gl.bindVertexArray(this.empty);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    gl.bindVertexArray(null);
  }

  /** Packed row of the nearest gaussian whose alpha at a pixel of the target is at least PICK_ALPHA, or -1. */
  pick(view, look, px, py) {
    const gl = this.gl, { count, order } = this.clouds[view], rows = Math.ceil(count / TEXTURE_WIDTH);
    if (!order || gl.isContextLost()) return -1;
    this.project(view, look);
    const [places, shapes, colors] = this.projected.textures.map((_, k) => {
      const words = new Uint32Array(4 * TEXTURE_WIDTH * rows);
      gl.readBuffer(gl.COLOR_ATTACHMENT0 + k);
      gl.readPixels(0, 0, TEXTURE_WIDTH, rows, gl.RGBA_INTEGER, gl.UNSIGNED_INT, words);
      return new Float32Array(words.buffer);
    });
    return order.findLast((row) => { // the nearest is drawn last
      const at = 4 * row, dx = px - places[at], dy = py - places[at + 1];
      const u = shapes[at + 1] * dx + shapes[at + 2] * dy, v = shapes[at + 3] * dy;
      return colors[at + 3] * Math.exp(-0.5 * (u * u + v * v)) >= PICK_ALPHA;
    }) ?? -1;
  }

  /** Copy all targets to the canvas, each on its own of `backgrounds`, premultiplied RGBA.
   * places: [{x, y, width, height}] in canvas pixels from the top left. */
  present(places, backgrounds) {
    const gl = this.gl;
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.disable(gl.SCISSOR_TEST);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.enable(gl.SCISSOR_TEST);
    gl.useProgram(this.copyProgram.program);
    gl.bindVertexArray(this.empty);
    gl.uniform1i(this.copyProgram.uniforms.uTarget, 0);
    places.forEach(({ x, y, width, height }, view) => {
      const bottom = this.canvas.height - y - height;
      gl.viewport(x, bottom, width, height);
      gl.scissor(x, bottom, width, height);
      gl.bindTexture(gl.TEXTURE_2D, this.parts[view].target.texture);
      gl.uniform4fv(this.copyProgram.uniforms.uBackground, backgrounds[view]);
      gl.uniform4i(this.copyProgram.uniforms.uPlace, x, bottom, width, height);
      gl.drawArrays(gl.TRIANGLES, 0, 3);
    });
    gl.bindVertexArray(null);
  }

  /** What `present` put on the canvas in this very task, as a 2D canvas with the viewports side by side. */
  sheet(places, columns, gap) {
    const { width, height } = places[0];
    const sheet = document.createElement("canvas");
    sheet.width = columns * (width + gap) - gap;
    sheet.height = Math.ceil(places.length / columns) * (height + gap) - gap;
    const paper = sheet.getContext("2d");
    places.forEach(({ x, y }, view) => {
      const left = (view % columns) * (width + gap), top = Math.floor(view / columns) * (height + gap);
      paper.drawImage(this.canvas, x, y, width, height, left, top, width, height);
    });
    return sheet;
  }

  close() {
    this.canvas.removeEventListener("webglcontextlost", this.onLost);
    this.canvas.removeEventListener("webglcontextrestored", this.onBack);
    this.gl.getExtension("WEBGL_lose_context")?.loseContext(); // browsers keep about 16
  }
}
