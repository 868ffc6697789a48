// Depth sorting in a Web Worker made from a Blob, so that it needs no file of its own.

/** Runs inside the worker: exact 32-bit radix sort of depths, farthest first. */
function sortWorkerMain() {
  const clouds = [];
  const low = new Uint32Array(65536), high = new Uint32Array(65536);
  self.onmessage = ({ data }) => {
    if (data.means) {
      const n = data.means.length / 3;
      clouds[data.view] = { means: data.means, keys: new Uint32Array(n), middle: new Uint32Array(n) };
      return;
    }
    const { means, keys, middle } = clouds[data.view];
    const n = keys.length, [x, y, z] = data.forward;
    const depths = new Float32Array(keys.buffer);
    low.fill(0);
    high.fill(0);
    for (let i = 0; i < n; i++) {
      depths[i] = x * means[3 * i] + y * means[3 * i + 1] + z * means[3 * i + 2];
      const bits = keys[i];
      const key = bits & 0x80000000 ? ~bits : bits | 0x80000000; // unsigned order = float order
      keys[i] = key;
      low[key & 65535]++;
      high[key >>> 16]++;
    }
    for (let k = 0, a = 0, b = 0; k < 65536; k++) {
      const p = low[k], q = high[k];
      low[k] = a;
      high[k] = b;
      a += p;
      b += q;
    }
    for (let i = 0; i < n; i++) middle[low[keys[i] & 65535]++] = i;
    const order = new Uint32Array(n);
    for (let j = 0; j < n; j++) order[n - 1 - high[keys[middle[j]] >>> 16]++] = middle[j];
    self.postMessage({ view: data.view, forward: data.forward, order }, [order.buffer]);
  };
}

/** One worker for all viewports; at most one request of each is under way, the newest wish wins. */
class DepthSorter {
  constructor(onOrder) {
    const url = URL.createObjectURL(new Blob([`(${sortWorkerMain})()`], { type: "text/javascript" }));
    this.worker = new Worker(url);
    URL.revokeObjectURL(url);
    this.states = [];
    this.worker.onmessage = ({ data }) => {
      const state = this.states[data.view];
      state.busy = false;
      state.done = data.forward;
      onOrder(data.view, data.order);
      if (state.wish) this.request(data.view, state.wish);
    };
  }

  /** base: Float32Array with 12 words per gaussian, of which the first three are the centre. */
  load(view, base, count) {
    const means = new Float32Array(3 * count);
    for (let i = 0, j = 0; j < 12 * count; j += 12) {
      means[i++] = base[j];
      means[i++] = base[j + 1];
      means[i++] = base[j + 2];
    }
    this.states[view] = { busy: false, done: null, wish: null };
    this.worker.postMessage({ view, means }, [means.buffer]);
  }

  /** Depth order depends on the viewing direction alone; a turn below 1e-7 is no turn. */
  request(view, forward) {
    const state = this.states[view];
    state.wish = null;
    if (state.done && Math.hypot(...add(state.done, forward, -1)) < 1e-7) return;
    if (state.busy) {
      state.wish = forward;
      return;
    }
    state.busy = true;
    this.worker.postMessage({ view, forward });
  }

  get settled() {
    return this.states.every((s) => s.done !== null && !s.busy && s.wish === null);
  }

  close() {
    this.worker.terminate();
  }
}
