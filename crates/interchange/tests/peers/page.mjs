// Draws with an exported page in headless Chromium:
// `node page.mjs PROGRAM`, with the path of `diffuse`. It needs npm (onnxruntime-web and playwright-core are installed to a
// temporary folder, unless NODE_MODULES names one that has them), python3 for a server, and Chromium at CHROMIUM
// (/usr/bin/chromium). `PAGE_MODEL` names a trained model with classes; without it the models of test `onnx_cases` are drawn
// (ONNX_CASES, or written here). Screenshots go to PAGE_SHOTS, if given.
//
// It also compares the JavaScript of the page with the chains of ONNX files, step by step the same sampler.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const ROOT = resolve(HERE, "../../../..");
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"];
const CHAIN_TOLERANCE = 1e-3;

const program = process.argv[2] && resolve(process.argv[2]);
if (!program) throw new Error("give the path of the program diffuse");
const temporary = mkdtempSync(join(tmpdir(), "page-"));

function modules() {
  if (process.env.NODE_MODULES) return resolve(process.env.NODE_MODULES);
  writeFileSync(join(temporary, "package.json"), "{}");
  execFileSync("npm", ["install", "--no-audit", "--no-fund", "onnxruntime-web", "playwright-core"], { cwd: temporary });
  return join(temporary, "node_modules");
}

function cases() {
  if (process.env.ONNX_CASES) return resolve(process.env.ONNX_CASES);
  const folder = join(temporary, "cases");
  const command = ["test", "--workspace", "--test", "onnx_cases", "--", "--ignored"];
  execFileSync("cargo", command, { cwd: ROOT, env: { ...process.env, ONNX_CASES: folder }, stdio: "inherit" });
  return folder;
}

/** The tensors of a safetensors file: names to arrays, f32 or i64. */
function readTensors(path) {
  const bytes = readFileSync(path);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString());
  const read = ({ dtype, shape, data_offsets: [from, to] }) => {
    const data = Uint8Array.from(bytes.subarray(8 + length + from, 8 + length + to)).buffer;
    return { shape, data: dtype === "I64" ? new BigInt64Array(data) : new Float32Array(data) };
  };
  return Object.fromEntries(Object.entries(header).map(([name, entry]) => [name, read(entry)]));
}

/** Each chain in onnxruntime-web, and the page's sampler over its network, against our images. */
async function compareChains(folder, ort) {
  const { readMetadata, sample } = await import(pathToFileURL(join(HERE, "../../src/page/diffusion.js")));
  for (const name of readdirSync(folder).filter((name) => name.startsWith("chain_"))) {
    const tensors = readTensors(join(folder, name, "tensors.safetensors"));
    const ours = tensors["images.1"].data;
    const difference = (images) => Math.max(...images.map((value, index) => Math.abs(value - ours[index])));
    const chain = await ort.InferenceSession.create(readFileSync(join(folder, name, "model.onnx")));
    const { data: noise, shape } = tensors["noise.1"];
    const given = { noise: new ort.Tensor("float32", noise, shape), labels: new ort.Tensor("int64", tensors["labels.1"].data) };
    const inputs = Object.fromEntries(chain.inputNames.map((input) => [input, given[input]]));
    const worstOfChain = difference((await chain.run(inputs)).images.data);
    assert.ok(worstOfChain <= CHAIN_TOLERANCE, `${name} in onnxruntime-web: differs by ${worstOfChain}`);
    const bytes = readFileSync(join(folder, name, "network.onnx"));
    const metadata = readMetadata(bytes);
    if (metadata.sampling.spacing !== "lucidrains" || name === "chain_everything") {
      const reason = "not compared: the page has neither its spacing nor its interval of guidance";
      console.log(`${name.padEnd(24)}chain ${worstOfChain.toExponential(1)}, page ${reason}`);
      continue;
    }
    const session = await ort.InferenceSession.create(bytes);
    const { channels, height, width } = metadata.image;
    const evaluate = async ({ x, time, batch, labels, selfCondition }) => {
      const inputs = {
        x_t: new ort.Tensor("float32", x, [batch, channels, height, width]),
        t: new ort.Tensor("float32", new Float32Array(batch).fill(time), [batch]),
        labels: new ort.Tensor("int64", BigInt64Array.from(labels, BigInt), [batch]),
        self_condition: new ort.Tensor("float32", selfCondition, [batch, channels, height, width]),
      };
      const given = Object.fromEntries(session.inputNames.map((input) => [input, inputs[input]]));
      return (await session.run(given)).prediction.data;
    };
    const { steps, guidance } = metadata.sampling;
    const options = { noise, steps, label: Number(tensors["labels.1"].data[0]), guidance };
    let calls = 0;
    const images = await sample(metadata, evaluate, options, () => void calls++);
    const worst = difference(images);
    assert.equal(calls, steps);
    assert.ok(worst <= CHAIN_TOLERANCE, `${name}: differs by ${worst}`);
    console.log(`${name.padEnd(24)}chain ${worstOfChain.toExponential(1)}, page ${worst.toExponential(1)}`);
  }
}

/** A server of a folder, for a function of its address. */
async function serving(folder, use) {
  const server = spawn("python3", ["-u", "-m", "http.server", "0", "--bind", "127.0.0.1"], { cwd: folder });
  try {
    const port = await new Promise((found, failed) => {
      server.stdout.on("data", (data) => {
        const port = String(data).match(/port (\d+)/)?.[1];
        if (port) found(port);
      });
      server.on("exit", () => failed(new Error("python3 -m http.server ended")));
    });
    await use(`http://127.0.0.1:${port}/`);
  } finally {
    server.kill();
  }
}

/** Draws with the page in a window of this size, by keyboard alone, and returns the downloaded PNG. */
async function drawIn(browser, address, { width, height, steps, label, shot }) {
  const context = await browser.newContext({ viewport: { width, height }, acceptDownloads: true });
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  page.on("request", (request) => {
    if (!request.url().startsWith(address) && /^https?:/.test(request.url())) problems.push(`asks for ${request.url()}`);
  });
  await page.goto(address);
  await page.waitForFunction(() => !document.getElementById("draw").disabled, null, { timeout: 120_000 });
  const overflows = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
  assert.ok(!overflows, `the page is wider than ${width} pixels`);
  assert.equal(await page.isVisible("#class"), label !== undefined);
  assert.equal(await page.isVisible("#guidance"), label !== undefined);
  if (label !== undefined) {
    await page.focus("#class");
    await page.selectOption("#class", String(label));
  }
  await page.focus("#seed");
  await page.keyboard.press("Control+A");
  await page.keyboard.type("3");
  await page.focus("#steps");
  await page.keyboard.press("Control+A");
  await page.keyboard.type(String(steps));
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => /^Step [1-9]/.test(document.getElementById("status").textContent), null, { timeout: 60_000 });
  await page.waitForFunction(() => !document.getElementById("download").disabled, null, { timeout: 300_000 });
  const status = await page.textContent("#status");
  assert.match(status, new RegExp(`^Drawn in ${steps} steps`), status);
  const download = page.waitForEvent("download");
  await page.focus("#download");
  await page.keyboard.press("Enter");
  const path = join(temporary, "picture.png");
  await (await download).saveAs(path);
  if (shot && process.env.PAGE_SHOTS) {
    mkdirSync(process.env.PAGE_SHOTS, { recursive: true });
    await page.screenshot({ path: join(process.env.PAGE_SHOTS, `${shot}.png`), fullPage: true });
    copyFileSync(path, join(process.env.PAGE_SHOTS, `${shot}-picture.png`));
  }
  assert.deepEqual(problems, []);
  console.log(`${`${width}x${height}`.padEnd(24)}${status}`);
  await context.close();
  return readFileSync(path);
}

/** A picture of many steps can be stopped, and another drawn. */
async function checkStop(browser, address) {
  const page = await browser.newPage();
  await page.goto(address);
  await page.waitForFunction(() => !document.getElementById("draw").disabled, null, { timeout: 120_000 });
  await page.fill("#steps", "1000");
  await page.click("#draw");
  await page.waitForFunction(() => /^Step [1-9]/.test(document.getElementById("status").textContent), null, { timeout: 60_000 });
  await page.click("#stop");
  await page.waitForFunction(() => !document.getElementById("download").disabled, null, { timeout: 60_000 });
  const status = await page.textContent("#status");
  assert.match(status, /^Stopped after \d+ of 1000 steps\.$/);
  await page.fill("#steps", "2");
  await page.click("#draw");
  await page.waitForFunction(() => document.getElementById("status").textContent.startsWith("Drawn in 2 steps"));
  console.log(`${"stopped".padEnd(24)}${status}`);
  await page.close();
}

/** A page without its network says so, and does not offer to draw. */
async function checkMissingModel(browser, folder) {
  rmSync(join(folder, "model.onnx"));
  await serving(folder, async (address) => {
    const page = await browser.newPage();
    await page.goto(address);
    await page.waitForSelector("#status.error", { timeout: 60_000 });
    const status = await page.textContent("#status");
    assert.match(status, /the server has no model\.onnx \(404\): copy the whole folder/);
    assert.ok(await page.isDisabled("#draw"));
    console.log(`${"without a model".padEnd(24)}${status}`);
    await page.close();
  });
}

async function main() {
  const packages = modules();
  const require = createRequire(join(packages, "x.js"));
  const folder = cases();
  await compareChains(folder, require("onnxruntime-web"));

  const { chromium } = require("playwright-core");
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
  try {
    const trained = process.env.PAGE_MODEL ?? join(folder, "chain_guided/model.safetensors");
    // with classes, in color and self-conditioned, without classes
    const models = [trained, ...["everything", "self_condition"].map((name) => join(folder, name, "model.safetensors"))];
    for (const [index, model] of models.entries()) {
      const page = join(temporary, `page-${index}`);
      const command = ["export", model, "--to", "page", "--out", page, "--onnxruntime-web", packages];
      execFileSync(program, command, { stdio: "inherit" });
      await serving(page, async (address) => {
        const options = { steps: 20, label: index < 2 ? 1 : undefined };
        const wide = await drawIn(browser, address, { ...options, width: 1100, height: 800, shot: `wide-${index}` });
        const phone = await drawIn(browser, address, { ...options, width: 360, height: 740, shot: `phone-${index}` });
        assert.ok(wide.equals(phone), "one seed gives one picture");
        if (index < 2) {
          const other = await drawIn(browser, address, { ...options, label: 2, width: 1100, height: 800 });
          assert.ok(!wide.equals(other), "another class gives another picture");
        }
        if (index === 0) await checkStop(browser, address);
      });
      if (index === 0) await checkMissingModel(browser, page);
    }
  } finally {
    await browser.close();
  }
}

try {
  await main();
} finally {
  rmSync(temporary, { recursive: true, force: true });
}
