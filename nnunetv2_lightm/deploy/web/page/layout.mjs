// The structures of runtime/src/lightm.h in WebAssembly's memory: fields of 8 bytes, pointers of 4.

const MOST_LEVELS = 8;
const SCHEMES = [
  ...["ZScoreNormalization", "CTNormalization", "NoNormalization", "RescaleTo01Normalization"],
  "RGBTo01Normalization",
];

// Fields one after the other, from a first address on.
class Fields {
  constructor(buffer, at) {
    this.view = new DataView(buffer);
    this.at = at;
  }
  integers(...values) {
    for (const value of values) this.view.setBigInt64((this.at += 8) - 8, BigInt(value), true);
  }
  numbers(...values) {
    for (const value of values) this.view.setFloat64((this.at += 8) - 8, value, true);
  }
  pointers(...values) {
    for (const value of values) this.view.setUint32((this.at += 4) - 4, value, true);
  }
}

export const integers = (buffer, at, values) => new Fields(buffer, at).integers(...values);
export const numbers = (buffer, at, values) => new Fields(buffer, at).numbers(...values);
export const pointers = (buffer, at, values) => new Fields(buffer, at).pointers(...values);

// Values of all three axes; a 2D model's have none of z.
const three = (values, first) => (values.length === 2 ? [first, ...values] : values);

function network(fields, { network: n }) {
  if (n.type !== "LightMUNet" || n.rvm_layers.length > MOST_LEVELS)
    throw new Error(`the engine does not run the network ${n.type} of ${n.rvm_layers.length} levels`);
  fields.integers(n.spatial_dims, n.input_channels, n.num_classes, n.features, n.rvm_layers.length);
  fields.integers(n.bottleneck_rvm_layers, n.expand, n.d_state);
  const levels = [...Array(MOST_LEVELS).keys()];
  fields.integers(...levels.map((level) => n.rvm_layers[level] ?? 0));
  for (const level of levels) fields.integers(...three(n.pooling[level] ?? [0, 0, 0], 1));
}

function pipeline(fields, { network: n, preprocessing: p, inference }, channels, regions) {
  const resampling = ({ order, order_z, force_separate_z: force, anisotropy_threshold: threshold }) => {
    fields.integers(order, order_z, force === null ? -1 : Number(force));
    fields.numbers(threshold);
  };
  const axes = inference.mirroring_axes.map((axis) => axis + 3 - n.spatial_dims);
  fields.integers(...three(inference.patch_size, 1), ...p.transpose_forward);
  fields.numbers(...three(p.spacing_mm, 0));
  resampling(p.resampling_data);
  resampling(p.resampling_logits);
  fields.numbers(inference.step, inference.gaussian_sigma);
  fields.integers(...[0, 1, 2].map((axis) => axes.includes(axis)));
  fields.pointers(channels, regions);
}

export const MODEL_BYTES = 520;
export const CHANNEL_BYTES = 48;

// LightmModel; channels and regions are addresses, regions 0 where there are none.
export function writeModel(buffer, at, description, folds, channels, regions) {
  const fields = new Fields(buffer, at);
  network(fields, description);
  pipeline(fields, description, channels, regions);
  fields.integers(folds);
  fields.pointers(0, 0);
}

// LightmChannel, one after the other.
export function writeChannels(buffer, at, { input }) {
  const fields = new Fields(buffer, at);
  for (const { scheme, use_mask, statistics: s } of input.channels) {
    if (!SCHEMES.includes(scheme)) throw new Error(`the engine does not know the normalisation ${scheme}`);
    fields.integers(SCHEMES.indexOf(scheme), use_mask);
    fields.numbers(...["mean", "std", "percentile_00_5", "percentile_99_5"].map((key) => s?.[key] ?? 0));
  }
}
