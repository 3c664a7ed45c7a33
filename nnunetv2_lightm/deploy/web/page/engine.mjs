// The compiled engine, runtime/src/web.cpp: one instance has one thread, and memory of its own.
import { tensorNames } from "./bundle.mjs";
import { CHANNEL_BYTES, MODEL_BYTES, integers, numbers, pointers, writeChannels, writeModel } from "./layout.mjs";
import { Refused } from "./refused.mjs";

const STATUSES = {
  1: "there is not enough memory for it in this browser",
  3: "the image has NaN or infinite voxels",
  4: "the model was trained on RGB images, and the image has values below 0 or above 255",
  5: "its size or spacing cannot be: an axis would have no voxel, or is not a number",
  6: "the network computed NaN or infinity for it",
};
export const NO_MEMORY = 1;
const TOO_LARGE = 7;

// A step of the engine failed for a reason that the user should know; why: what the status does not say.
export class EngineRefused extends Refused {
  constructor(status, why = STATUSES[status] ?? `status ${status}`) {
    super(`This image cannot be segmented: ${why}.`);
    this.status = status;
  }
}

// The engine asks nothing of a system; its C library would, to print the reason of an abort.
const system = new Proxy({}, { get: () => () => 0, has: () => true });

async function instantiate(module) {
  const needed = WebAssembly.Module.imports(module).map(({ name }) => name);
  const imports = Object.fromEntries(needed.map((name) => [name, system[name]]));
  const { exports } = await WebAssembly.instantiate(module, { wasi_snapshot_preview1: imports });
  exports._initialize();
  return exports;
}

export class Engine {
  // model: from parseBundle().
  static async start(module, model) {
    const engine = new Engine();
    engine.wasm = await instantiate(module);
    engine.pipeline = model.pipeline;
    const { LightmModel, LightmChannel } = engine.sizes();
    if (LightmModel !== MODEL_BYTES || LightmChannel !== CHANNEL_BYTES) throw new Error("the engine is of another version");
    const { network, input, output } = model.pipeline;
    const channels = engine.allocate(input.channels.length * CHANNEL_BYTES);
    const order = output.regions_class_order;
    const regions = order ? engine.allocate(8 * order.length) : 0;
    engine.model = engine.allocate(MODEL_BYTES);
    writeChannels(engine.buffer, channels, model.pipeline);
    if (order) integers(engine.buffer, regions, order);
    writeModel(engine.buffer, engine.model, model.pipeline, model.folds.length, channels, regions);
    const patch = model.pipeline.inference.patch_size;
    engine.patch = patch.length === 2 ? [1, ...patch] : patch;
    const voxels = engine.patch.reduce((a, b) => a * b, 1);
    engine.inputCount = network.input_channels * voxels;
    engine.logitCount = network.num_classes * voxels;
    return engine;
  }

  // Bytes of each structure and field as the engine was compiled with them, by its name in C.
  sizes() {
    const place = this.allocate(16), sizes = {};
    for (let i = 0n, name; (name = this.wasm.lightm_layout(i, place, place + 8)); ++i) {
      const letters = new Uint8Array(this.buffer, name);
      const text = new TextDecoder().decode(letters.subarray(0, letters.indexOf(0)));
      sizes[text] = Number(new DataView(this.buffer).getBigInt64(place + 8, true));
    }
    this.free(place);
    return sizes;
  }

  // WebAssembly moves its memory when it grows: never kept.
  get buffer() {
    return this.wasm.memory.buffer;
  }

  allocate(bytes) {
    const address = this.call("allocate", bytes);
    if (!address) throw new EngineRefused(NO_MEMORY);
    return address >>> 0;
  }

  free(address) {
    this.call("free", address);
  }

  floats(address, count) {
    return new Float32Array(this.buffer, address, count);
  }

  // Calls lightm_web_NAME. The engine has no exceptions: memory that is not there ends in the one trap that it has, after
  // which the instance is of no use.
  call(name, ...values) {
    try {
      return this.wasm[`lightm_web_${name}`](...values);
    } catch (error) {
      if (error instanceof WebAssembly.RuntimeError) throw new EngineRefused(NO_MEMORY);
      throw error;
    }
  }

  // The same for a function that returns a LightmStatus.
  step(name, ...values) {
    const status = this.call(name, ...values);
    if (status) throw new EngineRefused(status);
  }
}

// Runs the network of each fold.
export class Passes {
  constructor(engine, model) {
    this.engine = engine;
    this.names = tensorNames(model.pipeline.network);
    this.folds = model.folds.map((fold) => this.load(model, fold));
    this.size = engine.allocate(24);
    integers(engine.buffer, this.size, engine.patch);
    this.input = engine.allocate(4 * engine.inputCount);
    this.logits = engine.allocate(4 * engine.logitCount);
  }

  load(model, fold) {
    const { engine } = this;
    if (engine.call("tensor_count", engine.model) !== this.names.length)
      throw new Error("the engine does not run this network");
    const addresses = this.names.map((name, i) => {
      const { half, count, bytes } = model.tensor(`${fold}/${name}`);
      if (count !== engine.call("tensor_elements", engine.model, i))
        throw new Error(`the tensor ${name} has ${count} numbers`);
      const address = engine.allocate(4 * count);
      if (half) {
        const stored = engine.allocate(bytes.length);
        new Uint8Array(engine.buffer).set(bytes, stored);
        engine.wasm.lightm_half_to_float(stored, address, BigInt(count));
        engine.free(stored);
      } else {
        new Uint8Array(engine.buffer).set(bytes, address);
      }
      return address;
    });
    const table = engine.allocate(4 * addresses.length);
    pointers(engine.buffer, table, addresses);
    return engine.call("network", engine.model, table);
  }

  // input: Float32Array (channels, *patch) -> logits (classes, *patch).
  run(fold, input) {
    const { engine } = this;
    engine.floats(this.input, engine.inputCount).set(input);
    engine.step("forward", this.folds[fold], this.input, this.size, this.logits);
    return engine.floats(this.logits, engine.logitCount).slice();
  }
}

// One image on its way through nnU-Net's pipeline, but for the passes of the network.
export class Segmentation {
  // voxels: (channels, z, y, x); shape and spacing (mm): (z, y, x).
  constructor(engine, { voxels, shape, spacing }, labelBytes) {
    this.engine = engine;
    this.count = shape.reduce((a, b) => a * b, 1);
    this.labelBytes = labelBytes;
    this.labelAddress = engine.allocate(this.count * labelBytes);
    const sizes = engine.allocate(48);
    integers(engine.buffer, sizes, shape);
    numbers(engine.buffer, sizes + 24, spacing);
    const image = engine.allocate(4 * voxels.length);
    engine.floats(image, voxels.length).set(voxels);
    this.work = engine.call("begin", engine.model, sizes, sizes + 24, this.labelAddress, labelBytes);
    if (!this.work) throw new EngineRefused(5);
    const status = engine.call("prepare", this.work, image);
    if (status) throw new EngineRefused(status, status === TOO_LARGE ? this.sizes(image, sizes, shape, spacing) : undefined);
    engine.free(image);
    this.rows = engine.call("rows", this.work);
    this.tilesInRow = engine.call("tiles_in_row", this.work);
    this.passesOfTile = engine.call("passes_of_tile", this.work);
    this.floats = engine.allocate(4 * Math.max(engine.inputCount, engine.logitCount));
  }

  // Where resampling would make too much of the image: most such have a spacing in another unit.
  sizes(image, sizes, shape, spacing) {
    const { engine } = this, found = engine.allocate(24);
    engine.wasm.lightm_resampled_size(engine.model, image, sizes, sizes + 24, found);
    const times = (values) => [...values].map((value) => Number(value.toPrecision(6))).join(" x ");
    const voxels = times(new Float64Array(engine.buffer, found, 3));
    return (
      `too large for the engine: at its spacing, ${times(spacing)} mm (z, y, x), the model would see ${voxels} voxels for ` +
      `its ${times(shape)}; check its spacing`
    );
  }

  extract(tile, pass) {
    this.engine.call("extract", this.work, tile, pass, this.floats);
    return this.engine.floats(this.floats, this.engine.inputCount).slice();
  }

  add(tile, pass, logits) {
    this.engine.floats(this.floats, this.engine.logitCount).set(logits);
    this.engine.call("add", this.work, tile, pass, this.floats);
  }

  finishRow(row) {
    this.engine.step("finish_row", this.work, row);
  }

  get labels() {
    const Labels = this.labelBytes === 1 ? Uint8Array : Uint16Array;
    return new Labels(this.engine.buffer, this.labelAddress, this.count).slice();
  }
}
