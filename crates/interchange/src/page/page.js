// The page: its form, its canvas, and messages to and from the worker.

const element = (id) => document.getElementById(id);
const [form, canvas, status, progress] = ["form", "canvas", "status", "progress"].map(element);
const [drawButton, stopButton, downloadButton] = ["draw", "stop", "download"].map(element);
const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
let classes = [];
/** The last step of the picture: its number, the number of all, and the seconds since the first. */
let last = { done: 0, steps: 0, seconds: 0 };

function say(text, isError = false) {
  // steps follow too quickly to be read aloud
  status.ariaLive = drawButton.disabled && !stopButton.disabled ? "off" : "polite";
  status.textContent = text;
  status.classList.toggle("error", isError);
}

function setDrawing(isDrawing) {
  drawButton.disabled = isDrawing;
  stopButton.disabled = !isDrawing;
  if (isDrawing) downloadButton.disabled = true;
}

const handlers = {
  status: ({ text }) => say(text),
  loaded: (model) => {
    classes = model.classes;
    if (classes.length > 0) {
      const names = [...classes, "any"];
      element("class").append(...names.map((name, label) => new Option(name, String(label))));
      const guidance = element("guidance");
      guidance.max = String(Math.max(8, model.sampling.guidance));
      guidance.value = String(model.sampling.guidance);
      showGuidance();
      element("class-row").hidden = element("guidance-row").hidden = false;
    }
    element("steps").max = String(model.timesteps);
    element("steps").value = String(Math.min(model.sampling.steps, model.timesteps));
    [canvas.width, canvas.height] = [model.image.content_width, model.image.content_height];
    drawButton.disabled = false;
    say("Ready.");
  },
  step: ({ done, steps, seconds, rgba }) => {
    canvas.getContext("2d").putImageData(new ImageData(rgba, canvas.width, canvas.height), 0, 0);
    [progress.max, progress.value] = [steps, done];
    last = { done, steps, seconds };
    say(`Step ${done} of ${steps}, ${seconds.toFixed(1)} s`);
  },
  drawn: ({ isStopped }) => {
    setDrawing(false);
    downloadButton.disabled = false;
    canvas.setAttribute("aria-label", `${isStopped ? "An unfinished picture" : "A picture"}${ofClass()}`);
    const { done, steps, seconds } = last;
    say(isStopped ? `Stopped after ${done} of ${steps} steps.` : `Drawn in ${steps} steps, ${seconds.toFixed(1)} s.`);
  },
  error: ({ message }) => {
    setDrawing(false);
    // without a model, there is nothing to draw with
    drawButton.disabled = !element("steps").value;
    say(`This did not work: ${message}`, true);
  },
};

function ofClass() {
  const name = classes[Number(element("class").value)];
  return classes.length > 0 && name !== undefined ? ` of the class ${name}` : "";
}

function showGuidance() {
  element("guidance-value").value = Number(element("guidance").value).toFixed(1);
}

worker.onmessage = ({ data }) => handlers[data.kind](data);
worker.onerror = (event) => {
  const reason = event.message || "a file of the page is missing, or the browser knows no modules in workers";
  handlers.error({ message: `${reason}. Copy the whole folder that diffuse wrote, or use a newer browser.` });
};

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const number = (id) => Number(element(id).value);
  setDrawing(true);
  canvas.scrollIntoView({ block: "nearest" });
  canvas.setAttribute("aria-label", `A picture${ofClass()} that is being drawn`);
  const request = { kind: "draw", seed: number("seed"), steps: number("steps") };
  worker.postMessage({ ...request, label: number("class"), guidance: number("guidance") });
});

stopButton.addEventListener("click", () => worker.postMessage({ kind: "stop" }));
element("guidance").addEventListener("input", showGuidance);
element("new-seed").addEventListener("click", () => {
  element("seed").value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
});

downloadButton.addEventListener("click", () => {
  canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `seed-${element("seed").value}.png`;
    link.click();
    URL.revokeObjectURL(link.href);
  }, "image/png");
});

worker.postMessage({ kind: "load" });
