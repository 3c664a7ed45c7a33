// The image in one or three planes, its segmentation over it, and how they are looked at.
import { rgbOf } from "./labels.mjs";
import { eachPixel, indexAt, planesOf } from "./planes.mjs";

const SAMPLES = 20000, DARKEST = 0.005, BRIGHTEST = 0.995;

// Window that shows nearly all values: [level, width].
export function usualWindow(voxels) {
  const step = Math.max(1, Math.floor(voxels.length / SAMPLES));
  const some = Float32Array.from({ length: Math.floor((voxels.length - 1) / step) + 1 }, (_, i) => voxels[i * step]).sort();
  const low = some[Math.floor(DARKEST * (some.length - 1))], high = some[Math.floor(BRIGHTEST * (some.length - 1))];
  return high > low ? [(low + high) / 2, high - low] : [low, 1];
}

// element: empty; told(place) is called when another voxel is looked at.
export class Viewer {
  constructor(element, image, told) {
    Object.assign(this, { image, told, labels: null, opacity: 0.5, channel: 0, hidden: new Set() });
    this.count = image.size.reduce((a, b) => a * b, 1);
    // Of each channel: a CT and a map of its own unit have no grey in common.
    const channels = Array.from({ length: image.voxels.length / this.count }, (_, i) => i * this.count);
    this.usual = channels.map((first) => usualWindow(image.voxels.subarray(first, first + this.count)));
    this.windows = this.usual.map(([level, width]) => ({ level, width }));
    this.place = image.size.map((size) => Math.floor(size / 2));
    this.views = planesOf(image).map((plane) => this.view(plane));
    element.classList.toggle("volume", this.views.length > 1);
    element.replaceChildren(...this.views.map(({ figure }) => figure));
    this.draw();
  }

  // { level, width } of the channel that is shown.
  get window() {
    return this.windows[this.channel];
  }

  view(plane) {
    const figure = document.createElement("figure"), canvas = document.createElement("canvas");
    const caption = document.createElement("figcaption"), frame = document.createElement("div");
    canvas.width = plane.right.size;
    canvas.height = plane.down.size;
    canvas.style.setProperty("--ratio", (plane.right.size * plane.right.mm) / (plane.down.size * plane.down.mm));
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${plane.name} plane; arrow keys choose the voxel that is read out`);
    canvas.tabIndex = 0;
    frame.className = "frame";
    frame.append(canvas, ...plane.edges.map((letter, i) => edge(letter, ["left", "top"][i])));
    caption.textContent = plane.name;
    figure.append(frame, caption);
    const view = { plane, figure, canvas, context: canvas.getContext("2d"), slider: null };
    canvas.addEventListener("keydown", (event) => this.key(view, event));
    canvas.addEventListener("pointerdown", (event) => this.point(view, event));
    canvas.addEventListener("pointermove", (event) => event.buttons && this.point(view, event));
    if (plane.across.size > 1) {
      view.slider = slider(`${plane.name} slice`, plane.across.size);
      view.slider.addEventListener("input", () => this.go(plane.across.axis, indexAt(plane.across, Number(view.slider.value) - 1)));
      caption.append(view.slider);
      canvas.addEventListener("wheel", (event) => this.wheel(view, event), { passive: false });
    }
    return view;
  }

  point({ plane, canvas }, event) {
    const { left, top, width, height } = canvas.getBoundingClientRect();
    const at = (axis, share) => indexAt(axis, Math.max(0, Math.min(axis.size - 1, Math.floor(share * axis.size))));
    this.place[plane.right.axis] = at(plane.right, (event.clientX - left) / width);
    this.place[plane.down.axis] = at(plane.down, (event.clientY - top) / height);
    this.draw();
  }

  key({ plane: { right, down } }, event) {
    const steps = { ArrowLeft: [right, -1], ArrowRight: [right, 1], ArrowUp: [down, -1], ArrowDown: [down, 1] };
    const [{ axis, reversed }, step] = steps[event.key] ?? [{}];
    if (axis === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.go(axis, this.place[axis] + (reversed ? -step : step));
  }

  wheel({ plane: { across } }, event) {
    event.preventDefault();
    this.go(across.axis, this.place[across.axis] + Math.sign(event.deltaY));
  }

  go(axis, index) {
    this.place[axis] = Math.max(0, Math.min(this.image.size[axis] - 1, index));
    this.draw();
  }

  // Once for each frame, however often it is asked for.
  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.views.forEach((view) => this.drawView(view));
      this.told(this.place);
    });
  }

  drawView({ plane, canvas, context, slider: moved }) {
    const picture = context.createImageData(canvas.width, canvas.height);
    this.paint(plane, new Uint32Array(picture.data.buffer));
    context.putImageData(picture, 0, 0);
    if (!moved) return;
    const { across } = plane, at = indexAt(across, this.place[across.axis]) + 1;
    moved.value = String(at);
    moved.setAttribute("aria-valuetext", `${at} of ${across.size}`);
  }

  paint(plane, pixels) {
    const { labels, hidden, opacity, window: { level, width } } = this, first = this.channel * this.count;
    const { voxels } = this.image, low = level - width / 2, scale = 255 / Math.max(width, 1e-12);
    const colours = new Map();
    eachPixel(plane, this.place, (pixel, voxel) => {
      const grey = Math.max(0, Math.min(255, Math.round((voxels[first + voxel] - low) * scale)));
      const label = labels ? labels[voxel] : 0;
      let [r, g, b] = [grey, grey, grey];
      if (label && !hidden.has(label)) {
        if (!colours.has(label)) colours.set(label, rgbOf(label).map((part) => part * opacity));
        const colour = colours.get(label), rest = grey * (1 - opacity);
        [r, g, b] = [rest + colour[0], rest + colour[1], rest + colour[2]];
      }
      pixels[pixel] = (255 << 24) | (b << 16) | (g << 8) | r;
    });
  }

  // What is seen, side by side, as PNG; pixels are square.
  async picture() {
    const finest = Math.min(...this.views.flatMap(({ plane: { right, down } }) => [right.mm, down.mm]));
    const tiles = this.views.map(({ plane: { right, down }, canvas }) => ({
      canvas,
      width: Math.round((right.size * right.mm) / finest),
      height: Math.round((down.size * down.mm) / finest),
    }));
    const whole = new OffscreenCanvas(
      tiles.reduce((sum, { width }) => sum + width, 0),
      Math.max(...tiles.map(({ height }) => height)),
    );
    const context = whole.getContext("2d");
    context.imageSmoothingEnabled = false;
    let at = 0;
    for (const { canvas, width, height } of tiles) context.drawImage(canvas, (at += width) - width, 0, width, height);
    return whole.convertToBlob({ type: "image/png" });
  }
}

function edge(letter, side) {
  const element = document.createElement("span");
  element.className = `edge ${side}`;
  element.textContent = letter;
  return element;
}

function slider(name, size) {
  const element = document.createElement("input");
  Object.assign(element, { type: "range", min: "1", max: String(size), step: "1" });
  element.setAttribute("aria-label", name);
  return element;
}
