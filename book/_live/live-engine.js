/*
 * The book's networks, forwards and backwards, in plain numbers.
 *
 * A file without import and export, on purpose: Chromium loads no module from file://,
 * so the page takes this as a script; live.mjs gives the same file to whoever imports.
 */
(() => {
  "use strict";
  const SIDE = 28;
  const PIXELS = SIDE * SIDE;

  /** CRC-32, as zlib computes it. */
  function crc32(bytes) {
    const table = Int32Array.from({ length: 256 }, (_, value) => {
      for (let bit = 0; bit < 8; bit++) {
        value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
      }
      return value;
    });
    let sum = -1;
    for (let i = 0; i < bytes.length; i++) {
      sum = table[(sum ^ bytes[i]) & 255] ^ (sum >>> 8);
    }
    return ~sum >>> 0;
  }

  /** The number that 16 bits stand for. */
  function half(bits) {
    const exponent = (bits >> 10) & 31;
    const size = exponent
      ? (1 + (bits & 1023) / 1024) * 2 ** (exponent - 15)
      : (bits & 1023) * 2 ** -24;
    return bits >> 15 ? -size : size;
  }

  /**
   * Unpack the weights that tools/live_weights.py wrote.
   * @param {{manifest: {bytes: number, crc32: number, arrays: Object}, data: string}} packed
   * @returns {Object<string, Float32Array>} by name, row by row
   * @throws {Error} if a byte is not as it was written
   */
  function unpack({ manifest, data }) {
    const text = atob(data);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
    if (bytes.length !== manifest.bytes || crc32(bytes) !== manifest.crc32) {
      throw new Error("The network's weights arrived damaged.");
    }
    const types = { f4: Float32Array, f2: Uint16Array, i1: Int8Array, u1: Uint8Array };
    const halves = new Float32Array(65536).map((_, bits) => half(bits));
    const arrays = {};
    for (const [name, [kind, shape, begin]] of Object.entries(manifest.arrays)) {
      const size = shape.reduce((product, length) => product * length, 1);
      const stored = new types[kind](bytes.buffer, begin, size);
      arrays[name] = new Float32Array(stored);
      if (kind === "f2") stored.forEach((bits, i) => (arrays[name][i] = halves[bits]));
    }
    for (const name of Object.keys(arrays)) {
      const scale = arrays[`${name}/scale`];
      if (scale) arrays[name].forEach((step, i, all) => (all[i] = step * scale[i % scale.length]));
    }
    return arrays;
  }

  /** Dense layers by name, from the first to the last; `end` bends the last one. */
  function dense(arrays, prefix, names, end = "none") {
    return names.map((name, i) => ({
      kernel: arrays[`${prefix}/${name}/kernel`],
      bias: arrays[`${prefix}/${name}/bias`],
      bend: i < names.length - 1 ? "relu" : end,
    }));
  }

  const sigmoid = (value) => 1 / (1 + Math.exp(-value));

  /**
   * Run layers on one input.
   * @returns {Float64Array[]} the input and what each layer makes of it
   */
  function run(layers, input) {
    const values = [input];
    for (const { kernel, bias, bend } of layers) {
      const given = values.at(-1);
      const width = bias.length;
      const out = Float64Array.from(bias);
      for (let i = 0; i < given.length; i++) {
        const value = given[i];
        if (value === 0) continue; // most of a digit's paper
        const row = i * width;
        for (let j = 0; j < width; j++) out[j] += value * kernel[row + j];
      }
      if (bend === "relu") for (let j = 0; j < width; j++) out[j] = Math.max(out[j], 0);
      if (bend === "sigmoid") for (let j = 0; j < width; j++) out[j] = sigmoid(out[j]);
      values.push(out);
    }
    return values;
  }

  /** Pull a gradient at the output back to the input, past the values of `run`. */
  function pull(layers, values, gradient) {
    for (let n = layers.length - 1; n >= 0; n--) {
      const { kernel, bend } = layers[n];
      const out = values[n + 1];
      const width = out.length;
      const slope = Float64Array.from(gradient, (g, j) => {
        if (bend === "relu") return out[j] > 0 ? g : 0;
        return bend === "sigmoid" ? g * out[j] * (1 - out[j]) : g;
      });
      gradient = new Float64Array(values[n].length);
      for (let i = 0; i < gradient.length; i++) {
        let sum = 0;
        for (let j = 0, at = i * width; j < width; j++, at++) sum += kernel[at] * slope[j];
        gradient[i] = sum;
      }
    }
    return gradient;
  }

  function softmax(logits) {
    const top = Math.max(...logits);
    const powers = Array.from(logits, (value) => Math.exp(value - top));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((power) => power / sum);
  }

  const mean = (length, term) => {
    let sum = 0;
    for (let i = 0; i < length; i++) sum += term(i);
    return sum / length;
  };

  /** Mean squared difference. */
  const mse = (a, b) => mean(a.length, (i) => (a[i] - b[i]) ** 2);

  /** Total variation of a picture, as in netinvert.objectives, and its gradient. */
  function totalVariation(picture) {
    const gradient = new Float64Array(PIXELS);
    const share = 1 / (SIDE - 1) ** 2;
    let sum = 0;
    for (let row = 0; row < SIDE - 1; row++) {
      for (let at = row * SIDE; at < row * SIDE + SIDE - 1; at++) {
        const down = picture[at + SIDE] - picture[at];
        const right = picture[at + 1] - picture[at];
        const length = Math.sqrt(down * down + right * right + 1e-4);
        sum += share * length;
        gradient[at + SIDE] += (share * down) / length;
        gradient[at + 1] += (share * right) / length;
        gradient[at] -= (share * (down + right)) / length;
      }
    }
    return { value: sum, gradient };
  }

  /**
   * How far logits are from what is wanted, and the gradient with respect to them.
   * @type {Object<string, function(Float64Array, number[]): {value: number, gradient: number[]}>}
   */
  const mismatches = {
    /** Mean squared difference of the logits. */
    logits: (z, target) => ({
      value: mse(z, target),
      gradient: Array.from(z, (value, k) => (2 * (value - target[k])) / z.length),
    }),
    /** The same as a share of the target's mean square. */
    relative(z, target) {
      const size = Math.max(mean(target.length, (k) => target[k] ** 2), 1e-6);
      const { value, gradient } = mismatches.logits(z, target);
      return { value: value / size, gradient: gradient.map((g) => g / size) };
    },
    /** Mean squared difference of the probabilities. */
    softmax(z, target) {
      const p = softmax(z);
      const off = p.map((value, k) => value - target[k]);
      const pulled = p.reduce((sum, value, k) => sum + value * off[k], 0);
      const gradient = p.map((value, k) => (2 / p.length) * value * (off[k] - pulled));
      return { value: mse(p, target), gradient };
    },
    /** Cross-entropy against probabilities, such as 1 for one class. */
    class(z, target) {
      const p = softmax(z);
      const value = -target.reduce((sum, t, k) => sum + (t ? t * Math.log(p[k]) : 0), 0);
      return { value, gradient: p.map((share, k) => share - target[k]) };
    },
  };

  /**
   * What a search moves. Each has `encode`: a picture to a code; `draw`: a code to a
   * picture and what `pull` needs; `pull`: a picture's gradient to the code's.
   */
  const box = {
    penalty: 0,
    encode: (picture) =>
      Float64Array.from(picture, (value) => {
        const share = Math.min(Math.max(value, 0.01), 0.99);
        return Math.log(share / (1 - share));
      }),
    draw: (code) => ({ picture: code.map(sigmoid) }),
    pull: (gradient, { picture }) => gradient.map((g, i) => g * picture[i] * (1 - picture[i])),
  };
  const free = {
    penalty: 0,
    encode: (picture) => Float64Array.from(picture),
    draw: (code) => ({ picture: code.slice() }),
    pull: (gradient) => gradient,
  };

  /**
   * The networks of the page.
   * @param {Object<string, Float32Array>} arrays from `unpack`
   */
  function networks(arrays) {
    const f = dense(arrays, "mlp", ["hidden_1", "hidden_2", "logits"]);
    const decoder = dense(arrays, "decoder", ["hidden_1", "hidden_2", "values"], "sigmoid");
    const inner = dense(arrays, "inverse", ["hidden_1", "hidden_2"], "relu");
    const outer = dense(arrays, "inverse", ["values"], "sigmoid");

    /** Method 2's first guess: a code, by ridge regression on the target's features. */
    function guess(target) {
      const { directions, offsets, weights, middle, spread, low, high } = Object.fromEntries(
        Object.entries(arrays)
          .filter(([name]) => name.startsWith("guess/"))
          .map(([name, array]) => [name.slice(6), array]),
      );
      const scaled = Array.from(target, (value, k) => (value - middle[k]) / spread[k]);
      const [, random] = run([{ kernel: directions, bias: offsets, bend: "relu" }], scaled);
      const features = [...scaled, ...random.map((value) => value / Math.sqrt(random.length))];
      const width = low.length;
      const layer = { kernel: weights.subarray(width), bias: weights.subarray(0, width) };
      const [, code] = run([layer], features);
      return code.map((value, k) => Math.min(Math.max(value, low[k]), high[k]));
    }

    const center = arrays["decoder/center"];
    const [spread] = arrays["decoder/spread"];
    return {
      /** The ten logits of a picture. */
      logits: (picture) => run(f, picture).at(-1),
      forward: (picture) => run(f, picture),
      backward: (values, gradient) => pull(f, values, gradient),
      /** The evaluator's logits. */
      judge: (picture) => judge(arrays, picture),
      guess,
      /** Method 2's pictures: what the decoder draws from a code. */
      drawing: {
        penalty: 3e-5,
        draw(code) {
          const values = run(decoder, code.map((value, k) => value * spread + center[k]));
          return { picture: values.at(-1), values };
        },
        pull: (gradient, { values }) => pull(decoder, values, gradient).map((g) => g * spread),
      },
      /** Method 3's answer to ten logits. */
      inverse(target) {
        const [m, s] = [arrays["inverse/center"], arrays["inverse/spread"]];
        const standard = Float64Array.from(target, (value, k) => (value - m[k]) / s[k]);
        const given = Float64Array.of(...standard, ...run(inner, standard).at(-1));
        return run(outer, given).at(-1);
      },
      fiber: new Fiber(f[0].kernel, f[0].bias.length),
      mean: arrays.mean,
      /** Pictures of the test set, and the class of each. */
      digits: Array.from(arrays.labels, (label, n) => ({
        label,
        picture: Float64Array.from(
          arrays.digits.subarray(n * PIXELS, (n + 1) * PIXELS),
          (level) => level / 255,
        ),
      })),
    };
  }

  /** The evaluator: three 3 by 3 convolutions, each with a maximum of 2 by 2. */
  function judge(arrays, picture) {
    let [values, side, channels] = [picture, SIDE, 1];
    for (const name of ["conv_1", "conv_2", "conv_3"]) {
      const kernel = arrays[`evaluator/${name}/kernel`];
      const bias = arrays[`evaluator/${name}/bias`];
      values = convolve(values, side, channels, kernel, bias);
      channels = bias.length;
      values = pool(values, side, channels);
      side = side >> 1;
    }
    return run(dense(arrays, "evaluator", ["logits"]), values).at(-1);
  }

  /** A 3 by 3 convolution with a margin of zeros, and a ReLU. */
  function convolve(values, side, channels, kernel, bias) {
    const width = bias.length;
    const out = new Float64Array(side * side * width);
    for (let row = 0, at = 0; row < side; row++) {
      for (let column = 0; column < side; column++, at += width) {
        out.set(bias, at);
        for (let tap = 0; tap < 9; tap++) {
          const [r, c] = [row + Math.floor(tap / 3) - 1, column + (tap % 3) - 1];
          if (r < 0 || c < 0 || r >= side || c >= side) continue;
          for (let channel = 0; channel < channels; channel++) {
            const value = values[(r * side + c) * channels + channel];
            if (value === 0) continue;
            const from = (tap * channels + channel) * width;
            for (let j = 0; j < width; j++) out[at + j] += value * kernel[from + j];
          }
        }
      }
    }
    return out.map((value) => Math.max(value, 0));
  }

  /** The largest of each 2 by 2 values; an odd last row or column is left out. */
  function pool(values, side, channels) {
    const half = side >> 1;
    const out = new Float64Array(half * half * channels).fill(-Infinity);
    for (let row = 0; row < 2 * half; row++) {
      for (let column = 0; column < 2 * half; column++) {
        const from = (row * side + column) * channels;
        const to = ((row >> 1) * half + (column >> 1)) * channels;
        for (let j = 0; j < channels; j++) out[to + j] = Math.max(out[to + j], values[from + j]);
      }
    }
    return out;
  }

  /** A search as in netinvert.methods.gradient: Adam, its rate falling along a cosine. */
  class Search {
    /**
     * @param {ReturnType<typeof networks>} net
     * @param {Object} what
     * @param {Object} what.space `box`, `free` or the networks' `drawing`
     * @param {Float64Array} what.code where to begin
     * @param {keyof typeof mismatches} what.objective
     * @param {number[]} what.target logits, or probabilities for "softmax" and "class"
     * @param {number} [what.prior] weight of the total variation
     * @param {number} what.steps
     * @param {number} what.rate
     */
    constructor(net, what) {
      Object.assign(this, { prior: 0, ...what, net, done: 0 });
      this.average = new Float64Array(this.code.length);
      this.square = new Float64Array(this.code.length);
      this.look();
    }

    /** Draw the picture, run the network, compare. */
    look() {
      const { space, net, code } = this;
      this.drawn = space.draw(code);
      this.picture = this.drawn.picture;
      this.values = net.forward(this.picture);
      this.logits = this.values.at(-1);
      this.error = mismatches[this.objective](this.logits, this.target);
      this.roughness = this.prior ? totalVariation(this.picture) : null;
      this.total = this.error.value + (this.roughness ? this.prior * this.roughness.value : 0);
      if (space.penalty) this.total += space.penalty * mean(code.length, (i) => code[i] ** 2);
    }

    /** The gradient of the whole objective with respect to the picture. */
    slope() {
      const slope = this.net.backward(this.values, this.error.gradient);
      if (this.roughness) {
        const { gradient } = this.roughness;
        for (let i = 0; i < slope.length; i++) slope[i] += this.prior * gradient[i];
      }
      return slope;
    }

    step() {
      const { space, code, average, square, done, steps } = this;
      const gradient = space.pull(this.slope(), this.drawn);
      let rate = 0.5 * this.rate * (1 + Math.cos((Math.PI * done) / steps));
      rate *= Math.sqrt(1 - 0.999 ** (done + 1)) / (1 - 0.9 ** (done + 1));
      for (let i = 0; i < code.length; i++) {
        const g = gradient[i] + (2 * space.penalty * code[i]) / code.length;
        average[i] = 0.9 * average[i] + 0.1 * g;
        square[i] = 0.999 * square[i] + 0.001 * g * g;
        const moved = code[i] - (rate * average[i]) / (Math.sqrt(square[i]) + 1e-7);
        if (Number.isFinite(moved)) code[i] = moved;
      }
      this.done++;
      this.look();
    }
  }

  /** The pictures in [0, 1] that a layer cannot tell from one another. */
  class Fiber {
    constructor(kernel, width) {
      Object.assign(this, { kernel, width });
    }

    /** What the layer makes of a picture, without bias and bend. */
    seen(picture) {
      const bias = new Float64Array(this.width);
      return run([{ kernel: this.kernel, bias }], picture).at(-1);
    }

    /**
     * The picture nearest to a wish in {x : the layer sees `seen`, 0 <= x <= 1}.
     *
     * It is clip(wish + A u) for some u, one number for each unit. Newton's method
     * finds u, with the pixels that are not at a bound as the slope.
     */
    project(wish, seen, most = 60) {
      const { kernel, width } = this;
      const u = new Float64Array(width);
      const at = (u) => {
        const picture = new Float64Array(PIXELS);
        const open = new Uint8Array(PIXELS);
        let height = 0; // of the dual function, which is largest at the answer
        for (let i = 0; i < PIXELS; i++) {
          let value = wish[i];
          for (let j = 0, k = i * width; j < width; j++, k++) value += kernel[k] * u[j];
          open[i] = value > 0 && value < 1;
          picture[i] = Math.min(Math.max(value, 0), 1);
          height += (picture[i] - wish[i]) ** 2 / 2;
        }
        const missed = this.seen(picture).map((value, j) => seen[j] - value);
        for (let j = 0; j < width; j++) height += u[j] * missed[j];
        return { picture, open, missed, height, u };
      };
      let here = at(u);
      for (let n = 0; n < most && Math.max(...here.missed.map(Math.abs)) > 1e-9; n++) {
        const move = solve(this.squares(here.open), here.missed);
        const rise = move.reduce((sum, value, j) => sum + value * here.missed[j], 0);
        let next;
        for (let share = 1; share > 1e-6; share /= 2) {
          next = at(here.u.map((value, j) => value + share * move[j]));
          if (next.height >= here.height + 1e-4 * share * rise) break;
        }
        here = next;
      }
      return here;
    }

    /** A^T A over the open pixels, with a little on the diagonal so that it is regular. */
    squares(open) {
      const { kernel, width } = this;
      const sums = Array.from({ length: width }, () => new Float64Array(width));
      for (let i = 0; i < PIXELS; i++) {
        if (!open[i]) continue;
        for (let j = 0; j < width; j++) {
          const [row, value] = [sums[j], kernel[i * width + j]];
          for (let k = 0; k <= j; k++) row[k] += value * kernel[i * width + k];
        }
      }
      for (let j = 0; j < width; j++) sums[j][j] += 1e-6;
      return sums;
    }
  }

  /** Solve a symmetric positive system by Cholesky; `rows` holds its lower half. */
  function solve(rows, right) {
    const count = right.length;
    const out = Float64Array.from(right);
    for (let j = 0; j < count; j++) {
      for (let k = 0; k <= j; k++) {
        let sum = rows[j][k];
        for (let i = 0; i < k; i++) sum -= rows[j][i] * rows[k][i];
        rows[j][k] = j === k ? Math.sqrt(sum) : sum / rows[k][k];
      }
      for (let i = 0; i < j; i++) out[j] -= rows[j][i] * out[i];
      out[j] /= rows[j][j];
    }
    for (let j = count - 1; j >= 0; j--) {
      out[j] /= rows[j][j];
      for (let i = 0; i < j; i++) out[i] -= rows[j][i] * out[j];
    }
    return out;
  }

  const parts = { unpack, networks, Search, box, free, softmax, mse, totalVariation, SIDE };
  Object.assign((globalThis.netinvertLive ??= {}), parts);
})();
