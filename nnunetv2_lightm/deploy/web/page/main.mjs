// The page: files in, labels out.
import { parseBundle } from "./bundle.mjs";
import { Cancelled, MOST_HELPERS, segment } from "./crew.mjs";
import { deflate, inflate } from "./gzip.mjs";
import { readImage } from "./image.mjs";
import { amountOf, colourOf, countsOf, labelsOf } from "./labels.mjs";
import { writeNifti } from "./nifti.mjs";
import { writePng } from "./png.mjs";
import { Refused } from "./refused.mjs";
import { Viewer } from "./viewer.mjs";

const at = (id) => document.getElementById(id);
const page = { model: null, module: null, bundle: null, code: null, image: null, viewer: null, stop: null, early: [] };

// What the exporter put into the page: compressed, in base64.
async function embedded(id) {
  const text = atob(at(id).textContent);
  return inflate(Uint8Array.from(text, (letter) => letter.charCodeAt(0)), "gzip", "This page");
}

// The fused one is faster, where the browser has what it needs: relaxed SIMD.
async function chosenEngine() {
  const fused = await embedded("engine-fused");
  return WebAssembly.validate(fused) ? fused : embedded("engine");
}

async function start() {
  const bundle = await embedded("bundle");
  const module = await WebAssembly.compile(await chosenEngine());
  const code = URL.createObjectURL(new Blob([at("worker").textContent], { type: "text/javascript" }));
  // All at once: take() goes by the model whether the page is ready.
  Object.assign(page, { bundle, module, code, model: parseBundle(bundle) });
  describe(page.model.pipeline);
  at("files").disabled = false;
  say("Ready. Choose an image, or drop one anywhere on this page.");
  await take(page.early);
}

function describe({ input, network, source, licence, citation, inference }) {
  const facts = {
    Input: input.channels.map(({ name }) => name).join(", ") + (network.spatial_dims === 3 ? ", volumes" : ", 2D"),
    Network: `${network.type}, ${source.trainer}, ${page.model.folds.length} fold(s)`,
    Training: `${source.dataset}, ${source.configuration}, patch ${inference.patch_size.join(" x ")}`,
    Licence: licence ?? "not stated",
    "To cite": citation.join(" "),
  };
  at("facts").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
}

function element(tag, text = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

function say(text, wrong = false) {
  at("status").textContent = text;
  at("status").classList.toggle("wrong", wrong);
}

async function take(files) {
  if (!files.length) return;
  if (!page.model) return void (page.early = files); // dropped while the model loads: start() takes them
  page.stop?.abort();
  const stop = (page.stop = new AbortController());
  const current = () => page.stop === stop;
  try {
    say(`Reading ${[...files].map(({ name }) => name).join(", ")} ...`);
    const image = await readImage(files, page.model.pipeline);
    if (!current()) return;
    show(image);
    await segmented(image, stop);
  } catch (error) {
    if (!current() && !(error instanceof Cancelled)) return;
    const cancelled = () => `Cancelled. The image is shown without a segmentation.${doubtOf(page.image)}`;
    if (error instanceof Cancelled) current() && say(cancelled());
    else say(error instanceof Refused ? error.message : `This did not work: ${error.message}`, true);
  } finally {
    if (current()) {
      page.stop = null;
      at("work").hidden = true;
    }
  }
}

const doubtOf = ({ doubt }) => (doubt ? ` Its orientation is uncertain, so the edges carry no letters: ${doubt}.` : "");

async function segmented(image, stop) {
  const began = performance.now();
  at("work").hidden = false;
  at("progress").removeAttribute("value");
  say(`Segmenting ${image.name} ...`);
  const progress = (done, total) => {
    Object.assign(at("progress"), { max: total, value: done });
    at("passes").textContent = `${done} of ${total}`;
  };
  const { code, module, bundle } = page;
  const helpers = Math.min(MOST_HELPERS, navigator.hardwareConcurrency || 1);
  const found = await segment({ code, module, bundle, image: image.input, helpers, progress, signal: stop.signal });
  image.input = null;
  image.labels = image.back(found);
  page.viewer.labels = image.labels;
  page.viewer.draw();
  tabulate(image);
  at("save").hidden = false;
  say(`${image.name}: segmented in ${((performance.now() - began) / 1000).toFixed(1)} s.${doubtOf(image)}`);
}

function show(image) {
  page.image = image;
  at("sources").textContent = image.sources.map(({ channel, file }) => `${channel} = ${file}`).join(", ");
  at("sources").hidden = image.sources.length === 1;
  page.viewer = new Viewer(at("planes"), image, tell);
  setRanges(page.viewer);
  at("opacity").value = 100 * page.viewer.opacity;
  const names = page.model.pipeline.input.channels.map(({ name }, i) => Object.assign(element("option", name), { value: i }));
  at("channel").replaceChildren(...names);
  at("channel").parentElement.hidden = names.length === 1;
  at("png").hidden = image.dimensions === 3;
  for (const id of ["table", "save"]) at(id).hidden = true;
  at("viewer").hidden = false;
}

// The sliders of the window, for the channel that is shown.
function setRanges({ usual, channel, window: chosen }) {
  const [level, width] = usual[channel];
  const range = (id, least, most) =>
    Object.assign(at(id), { min: least, max: most, step: (most - least) / 500, value: chosen[id] });
  range("level", level - 1.5 * width, level + 1.5 * width);
  range("width", width / 100, 3 * width);
}

// Voxel, value and label that are looked at.
function tell([x, y, z]) {
  const { size, voxels, labels, dimensions } = page.image;
  const voxel = (z * size[1] + y) * size[0] + x, label = labels?.[voxel];
  const value = voxels[page.viewer.channel * page.viewer.count + voxel];
  const names = label ? labelsOf(page.model.pipeline).filter(({ values }) => values.includes(label)) : [];
  const place = dimensions === 3 ? `${x}, ${y}, ${z}` : `${x}, ${y}`;
  at("voxel").textContent = `Voxel ${place}: ${Number(value.toPrecision(5))}${names.map(({ name }) => `, ${name}`).join("")}`;
}

function tabulate(image) {
  const { pipeline } = page.model, counts = countsOf(image.labels, pipeline);
  const rows = labelsOf(pipeline).map(({ name, values }, i) => {
    const row = element("tr"), shown = element("input"), heading = element("th"), named = element("label");
    Object.assign(shown, { type: "checkbox", checked: true });
    shown.addEventListener("change", () => {
      for (const value of values) page.viewer.hidden[shown.checked ? "delete" : "add"](value);
      page.viewer.draw();
    });
    heading.scope = "row";
    named.append(shown, ...values.map(swatch), name);
    heading.append(named);
    row.append(heading, element("td", counts[i].toLocaleString("en")), element("td", amountOf(counts[i], image)));
    return row;
  });
  at("rows").replaceChildren(...rows);
  at("table").hidden = false;
}

function swatch(label) {
  const made = element("span");
  made.className = "swatch";
  made.style.background = colourOf(label);
  return made;
}

function save(blob, ending) {
  const link = element("a"), stem = page.image.name.replace(/\.(nii(\.gz)?|png|jpe?g)$/i, "");
  link.href = URL.createObjectURL(blob);
  link.download = `${stem}${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

const savers = {
  nifti: async ({ labels }) => save(new Blob([await deflate(writeNifti(page.image, labels), "gzip")]), "_seg.nii.gz"),
  png: async ({ labels, size }) => save(new Blob([await writePng(size[0], size[1], labels)], { type: "image/png" }), "_seg.png"),
  picture: async () => save(await page.viewer.picture(), "_picture.png"),
};

function listen() {
  at("files").addEventListener("change", () => {
    const files = [...at("files").files];
    at("files").value = ""; // so that the same file can be chosen again
    take(files);
  });
  const body = document.body;
  body.addEventListener("dragover", (event) => {
    event.preventDefault();
    body.classList.add("dragged");
  });
  body.addEventListener("dragleave", () => body.classList.remove("dragged"));
  body.addEventListener("drop", (event) => {
    event.preventDefault();
    body.classList.remove("dragged");
    take([...event.dataTransfer.files]);
  });
  at("cancel").addEventListener("click", () => page.stop?.abort());
  body.addEventListener("keydown", ({ key }) => key === "Escape" && page.stop?.abort());
  const look = (id, set) => at(id).addEventListener("input", () => (set(Number(at(id).value)), page.viewer.draw()));
  look("level", (value) => (page.viewer.window.level = value));
  look("width", (value) => (page.viewer.window.width = value));
  look("opacity", (value) => (page.viewer.opacity = value / 100));
  look("channel", (value) => {
    page.viewer.channel = value;
    setRanges(page.viewer);
  });
  for (const [id, act] of Object.entries(savers))
    at(id).addEventListener("click", () => act(page.image).catch((error) => say(`Not saved: ${error.message}`, true)));
}

listen();
start().catch((error) => say(error instanceof Refused ? error.message : `This browser cannot run the page: ${error.message}`, true));
