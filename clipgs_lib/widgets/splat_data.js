// The splats on their way from Python.
// Messages: {type: "load"} asks Python for the packed splats, which come as {type: "splats"} with one buffer per
// view (layout: wire.py) and, with {type: "values"}, the colour indices.

/** A DataView of the wire as a typed array, copied only when it is not aligned. */
function typed(kind, view) {
  const size = kind.BYTES_PER_ELEMENT;
  if (view.byteOffset % size === 0) return new kind(view.buffer, view.byteOffset, view.byteLength / size);
  return new kind(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}

/** Ask Python once per model for the splats; resolves when the kernel is free to answer. */
function splatSource(model) {
  let answer = null;
  return () => {
    answer ??= new Promise((resolve) => {
      const listen = (content, buffers) => {
        if (content.type !== "splats") return;
        model.off("msg:custom", listen);
        resolve(content.views.map((view, i) => unpackCloud(view, buffers[i])));
      };
      model.on("msg:custom", listen);
      model.send({ type: "load" });
    });
    return answer;
  };
}

function unpackCloud({ count, degree, base_words, sh_words, index_words }, buffer) {
  const words = typed(Uint32Array, buffer);
  const base = words.subarray(0, base_words);
  const sh = words.subarray(base_words, base_words + sh_words);
  const index = index_words ? words.subarray(base_words + sh_words, base_words + sh_words + index_words) : null;
  const floats = new Float32Array(base.buffer, base.byteOffset, base.length);
  return { count, degree, base, floats, sh, index, shTexels: sh_words / (4 * count), values: null, order: null };
}

// A gaussian has a packed row, 12 words of `base`, and a row in the splats that Python was given.
const packedRow = (cloud, original) => (cloud.index ? cloud.index.indexOf(original) : original);
const originalRow = (cloud, row) => (cloud.index ? cloud.index[row] : row);
const opacityOf = (cloud, row) => (cloud.base[12 * row + 11] >>> 16) / 65535;
const meanOf = (cloud, row) => Array.from(cloud.floats.subarray(12 * row, 12 * row + 3));

function gaussianText(cloud, row) {
  const list = (from) => {
    const numbers = cloud.floats.subarray(12 * row + from, 12 * row + from + 3);
    return Array.from(numbers, (v) => v.toPrecision(3)).join(" ");
  };
  return `opacity ${opacityOf(cloud, row).toFixed(2)} · scales ${list(3)} · at ${list(0)}`;
}

function cropBox(model) {
  const crop = model.get("crop");
  return { on: model.get("crop_on"), low: crop.map((p) => p[0]), high: crop.map((p) => p[1]) };
}

const inCrop = ({ on, low, high }, mean) => // in float32, as the shader and Python compare
  !on || mean.every((v, k) => v >= Math.fround(low[k]) && v <= Math.fround(high[k]));
