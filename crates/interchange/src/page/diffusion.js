// The reverse process over a network that another module evaluates: metadata of the file, noise levels, DDIM, pictures.
// It knows no page and no runtime.

/** The metadata of an ONNX file (its bytes), with the JSON values read; throws an Error if it is not a network of diffuse. */
export function readMetadata(bytes) {
  const entries = {};
  for (const [field, value] of fields(bytes)) {
    if (field !== METADATA_FIELD || !(value instanceof Uint8Array)) continue;
    const entry = Object.fromEntries(fields(value));
    const text = (part) => new TextDecoder().decode(part ?? new Uint8Array());
    entries[text(entry[1])] = text(entry[2]);
  }
  if (entries.diffuse_version === undefined) {
    throw new Error("the file has no metadata of diffuse: write it with `diffuse export MODEL --to page`");
  }
  if (entries.diffuse_version !== "1") {
    throw new Error(`the file has metadata of version ${entries.diffuse_version}; this page reads version 1: export it again`);
  }
  if (entries.graph !== "network") {
    throw new Error("the file has a whole chain, and this page draws step by step: export it without --chain");
  }
  return {
    objective: entries.objective,
    alphaBars: JSON.parse(entries.alpha_bars),
    classes: JSON.parse(entries.classes),
    image: JSON.parse(entries.image),
    sampling: JSON.parse(entries.sampling),
  };
}

/** Field of `metadata_props` in ONNX's ModelProto. */
const METADATA_FIELD = 14;

/** The fields of a protobuf message: pairs of number and value, which is a number or the bytes of a field with a length. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      if (at >= bytes.length || factor > 2 ** 63) throw new Error("the file is not ONNX, or it was cut off");
      const byte = bytes[at++];
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint();
    const [field, wire] = [Math.floor(key / 8), key % 8];
    const fixed = { 1: 8, 5: 4 }[wire];
    if (wire === 0) {
      yield [field, varint()];
    } else if (wire === 2 || fixed) {
      const length = fixed ?? varint();
      if (at + length > bytes.length) throw new Error("the file is not ONNX, or it was cut off");
      yield [field, bytes.subarray(at, at + length)];
      at += length;
    } else {
      throw new Error("the file is not ONNX");
    }
  }
}

/** The timesteps of a chain, T - 1 down to above 0: evenly spaced, as crate schedule's `lucidrains` in single precision. */
export function timesteps(count, steps) {
  const step = Math.fround(count / steps);
  const single = (i) => {
    const forward = Math.fround(-1 + Math.fround(step * i));
    const backward = Math.fround(count - 1 - Math.fround(step * (steps - i)));
    return Math.trunc(i < Math.ceil(steps / 2) ? forward : backward);
  };
  const descending = (value) => Array.from({ length: steps + 1 }, (_, index) => value(steps - index));
  const times = descending(single);
  const falls = times.every((time, index) => index === 0 || times[index - 1] > time);
  return (falls ? times : descending((i) => Math.floor((i * count) / steps) - 1)).slice(0, -1);
}

/** The noise levels of a chain of `steps` steps, the noisiest first, and clean data behind them. */
export function levels(alphaBars, steps) {
  const level = (timestep) => ({ timestep, alphaBar: alphaBars[timestep] });
  return [...timesteps(alphaBars.length, steps).map(level), { timestep: -1, alphaBar: 1 }];
}

/**
 * The factors of an objective at a level: of x_t in the network's input, its time, and those of x_t and the output in x_0 and
 * epsilon. The table is that of crate schedule's `Objective::preconditioning`.
 */
export function factors(objective, { timestep, alphaBar }) {
  const [a, n] = [Math.sqrt(alphaBar), Math.sqrt(1 - alphaBar)];
  if (objective === "epsilon") return { input: 1, time: timestep, x0: [1 / a, -n / a], epsilon: [0, 1] };
  if (objective === "x0") return { input: 1, time: timestep, x0: [0, 1], epsilon: [1 / n, -a / n] };
  if (objective === "v") return { input: 1, time: timestep, x0: [a, -n], epsilon: [n, a] };
  if (objective === "flow") {
    const sum = a + n;
    return { input: 1 / sum, time: (1000 * n) / sum, x0: [1 / sum, -n / sum], epsilon: [1 / sum, a / sum] };
  }
  if (objective.startsWith("edm:")) {
    const data = Number(objective.slice(4));
    const q = Math.hypot(n, a * data);
    return {
      input: 1 / q,
      time: 250 * Math.log(n / a),
      x0: [(a * data * data) / (q * q), (n * data) / q],
      epsilon: [n / (q * q), (-a * data) / q],
    };
  }
  throw new Error(`this page does not know the objective ${objective}`);
}

/** `count` standard normal numbers that follow from a seed (Box and Muller, over the generator mulberry32). */
export function gaussian(seed, count) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return (((z ^ (z >>> 14)) >>> 0) + 0.5) / 4294967296;
  };
  const numbers = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const [radius, angle] = [Math.sqrt(-2 * Math.log(uniform())), 2 * Math.PI * uniform()];
    numbers[i] = radius * Math.cos(angle);
    if (i + 1 < count) numbers[i + 1] = radius * Math.sin(angle);
  }
  return numbers;
}

/**
 * Draws one image by DDIM without noise (eta 0) and returns it, `[channels, height, width]` in about [-1, 1].
 *
 * `evaluate({ x, time, batch, labels, selfCondition })` returns the raw output of the network for `batch` images, one behind the
 * other. `options` has `noise` (an image), `steps`, and of a model with classes `label` and `guidance`. `onStep(index, x)` is
 * called after each step, and ends the chain by returning false.
 */
export async function sample({ objective, alphaBars, classes, sampling }, evaluate, options, onStep) {
  let x = options.noise;
  const size = x.length;
  const isGuided = classes.length > 0 && options.guidance !== 1;
  const labels = isGuided ? [options.label, classes.length] : [options.label];
  const batch = labels.length;
  const visited = levels(alphaBars, options.steps);
  let selfCondition = new Float32Array(size);
  for (let index = 0; index < options.steps; index++) {
    const [level, next] = [visited[index], visited[index + 1]];
    const { input, time, x0: ofX0, epsilon } = factors(objective, level);
    // of clipped images, epsilon follows from x_0
    const ofEpsilon = sampling.clip ? factors("x0", level).epsilon : epsilon;
    if (![input, time, ...ofX0, ...ofEpsilon].every(Number.isFinite)) {
      throw new Error(`the objective ${objective} says nothing at timestep ${level.timestep}: choose other steps`);
    }
    const fed = x.map((value) => value * input);
    const output = await evaluate({ x: times(fed, batch), time, batch, labels, selfCondition: times(selfCondition, batch) });
    // a learned variance lies behind the prediction of each image
    const stride = output.length / batch;
    const [nextSignal, nextNoise] = [Math.sqrt(next.alphaBar), Math.sqrt(1 - next.alphaBar)];
    const [after, x0s] = [new Float32Array(size), new Float32Array(size)];
    for (let i = 0; i < size; i++) {
      const guided = isGuided ? output[stride + i] + (output[i] - output[stride + i]) * options.guidance : output[i];
      let x0 = ofX0[0] * x[i] + ofX0[1] * guided;
      if (sampling.clip) x0 = Math.min(Math.max(x0, -1), 1);
      const noise = ofEpsilon[0] * x[i] + ofEpsilon[1] * (sampling.clip ? x0 : guided);
      x0s[i] = x0;
      after[i] = nextSignal * x0 + nextNoise * noise;
    }
    [x, selfCondition] = [after, x0s];
    if (!x.every(Number.isFinite)) throw new Error(`the network returned numbers that are not finite in step ${index + 1}`);
    if ((await onStep(index, x)) === false) return x;
  }
  return x;
}

/** Copies of an array, one behind the other. */
function times(values, count) {
  const result = new Float32Array(values.length * count);
  for (let i = 0; i < count; i++) result.set(values, i * values.length);
  return result;
}

/** The content of an image in [-1, 1] as bytes of red, green, blue and alpha. */
export function toRgba(x, image) {
  const { height, width, content_height: rows, content_width: columns } = image;
  const [top, left] = [Math.floor((height - rows) / 2), Math.floor((width - columns) / 2)];
  const shown = image.preview_channels ?? (image.channels === 1 ? [0, 0, 0] : [0, 1, 2]);
  const alpha = image.channels === 4 && !image.preview_channels ? 3 : null;
  const bytes = new Uint8ClampedArray(4 * rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const pixel = (top + row) * width + left + column;
      const byte = (channel) => (x[channel * height * width + pixel] + 1) * 127.5;
      const at = 4 * (row * columns + column);
      shown.forEach((channel, index) => (bytes[at + index] = byte(channel)));
      bytes[at + 3] = alpha === null ? 255 : byte(alpha);
    }
  }
  return bytes;
}
