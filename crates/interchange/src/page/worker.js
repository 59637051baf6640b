// Loads the network and draws, beside the page, which stays responsive.

import * as ort from "./onnxruntime-web/ort.wasm.min.js";
import { gaussian, readMetadata, sample, toRgba } from "./diffusion.js";

const here = (path) => new URL(path, import.meta.url).href;
ort.env.wasm.wasmPaths = {
  mjs: here("./onnxruntime-web/ort-wasm-simd-threaded.js"),
  wasm: here("./onnxruntime-web/ort-wasm-simd-threaded.wasm"),
};
// threads need memory that is shared, which a browser gives to isolated pages alone
if (!self.crossOriginIsolated) ort.env.wasm.numThreads = 1;

let session;
let metadata;
let isStopped = false;

self.onmessage = async ({ data }) => {
  if (data.kind === "stop") {
    isStopped = true;
    return;
  }
  try {
    await (data.kind === "load" ? load() : draw(data));
  } catch (error) {
    self.postMessage({ kind: "error", message: error?.message ?? String(error) });
  }
};

async function load() {
  const bytes = await download("model.onnx");
  metadata = readMetadata(bytes);
  self.postMessage({ kind: "status", text: "Preparing the network…" });
  session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  const { classes, image, sampling, alphaBars } = metadata;
  self.postMessage({ kind: "loaded", classes, image, sampling, timesteps: alphaBars.length });
}

async function download(name) {
  const response = await fetch(here(name));
  if (!response.ok) {
    throw new Error(`the server has no ${name} (${response.status}): copy the whole folder that diffuse wrote`);
  }
  const total = Number(response.headers.get("content-length"));
  const [parts, reader] = [[], response.body.getReader()];
  let count = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    count += value.length;
    const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
    const of = total >= count ? ` of ${megabytes(total)}` : "";
    self.postMessage({ kind: "status", text: `Loading the model: ${megabytes(count)}${of} MB` });
  }
  const bytes = new Uint8Array(count);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

async function draw({ seed, steps, label, guidance }) {
  isStopped = false;
  const { image } = metadata;
  const noise = gaussian(seed, image.channels * image.height * image.width);
  const began = performance.now();
  const show = async (index, x) => {
    const seconds = (performance.now() - began) / 1000;
    self.postMessage({ kind: "step", done: index + 1, steps, seconds, rgba: toRgba(x, image) });
    // messages are received between two steps
    await new Promise((resolve) => setTimeout(resolve));
    return !isStopped;
  };
  self.postMessage({ kind: "step", done: 0, steps, seconds: 0, rgba: toRgba(noise, image) });
  await sample(metadata, evaluate, { noise, steps, label, guidance }, show);
  self.postMessage({ kind: "drawn", isStopped });
}

async function evaluate({ x, time, batch, labels, selfCondition }) {
  const { channels, height, width } = metadata.image;
  const shape = [batch, channels, height, width];
  const inputs = {
    x_t: new ort.Tensor("float32", x, shape),
    t: new ort.Tensor("float32", new Float32Array(batch).fill(time), [batch]),
  };
  if (session.inputNames.includes("labels")) {
    inputs.labels = new ort.Tensor("int64", BigInt64Array.from(labels, BigInt), [batch]);
  }
  if (session.inputNames.includes("self_condition")) {
    inputs.self_condition = new ort.Tensor("float32", selfCondition, shape);
  }
  const { prediction } = await session.run(inputs);
  return prediction.data;
}
