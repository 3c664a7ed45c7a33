// The model: safetensors with the pipeline in its metadata, docs/bundle.md. The exporter has checked it, and the browser
// the checksum with which the page packs it, header and weights alike.

// bytes: Uint8Array -> { pipeline, folds, tensor(name) }.
export function parseBundle(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const begin = 8 + Number(view.getBigUint64(0, true));
  const entries = JSON.parse(new TextDecoder().decode(bytes.subarray(8, begin)));
  const pipeline = JSON.parse(entries.__metadata__.pipeline);
  delete entries.__metadata__;
  const folds = [...new Set(Object.keys(entries).map((name) => name.split("/")[0]))];
  const tensor = (name) => {
    const { dtype, shape, data_offsets: [first, end] } = entries[name];
    return { half: dtype === "F16", count: shape.reduce((a, b) => a * b, 1), bytes: bytes.subarray(begin + first, begin + end) };
  };
  return { pipeline, folds, tensor };
}

// Names in the order of the engine, tensor_elements() in runtime/src/network.cpp.
export function tensorNames(network) {
  const rvm = [
    ...["norm_in.weight", "norm_in.bias", "vssm.in_proj.weight", "vssm.gate_proj.weight", "vssm.dwconv.weight"],
    ...["vssm.dwconv.bias", "vssm.ssms.0.x_proj.weight", "vssm.ssms.0.dt_proj.weight", "vssm.ssms.0.dt_proj.bias"],
    ...["vssm.ssms.0.A_log", "vssm.ssms.0.D", "vssm.norm.weight", "vssm.norm.bias", "vssm.out_proj.weight", "scale"],
    ...["norm_out.weight", "norm_out.bias", "projection.weight", "projection.bias"],
  ];
  const names = ["pointwise.weight", "pointwise.bias", "depthwise.weight", "depthwise.bias"].map((name) => `stem.${name}`);
  const block = (prefix, ofIt) => names.push(...ofIt.map((name) => `${prefix}.${name}`));
  network.rvm_layers.forEach((count, level) => {
    for (let layer = 0; layer < count; ++layer) block(`encoder.${level}.layers.${layer}`, rvm);
  });
  for (let layer = 0; layer < network.bottleneck_rvm_layers; ++layer) block(`bottleneck.${layer}`, rvm);
  network.rvm_layers.forEach((_, level) =>
    block(`decoder.blocks.${level}`, ["dwconv.weight", "dwconv.bias", "scale", "halve.weight", "halve.bias"]));
  block("decoder.seg_layers.0", ["depthwise.weight", "depthwise.bias", "pointwise.weight", "pointwise.bias"]);
  return names;
}

// The largest number that a voxel of the segmentation can have.
export function mostLabel(pipeline) {
  const regions = pipeline.output.regions_class_order;
  return regions ? Math.max(...regions) : pipeline.output.num_classes - 1;
}
