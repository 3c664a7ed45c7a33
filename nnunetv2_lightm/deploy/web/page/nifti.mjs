// NIfTI-1, read and written. Axes are (x, y, z) as in the file, voxels lie in its order: x fastest.
import { isSheared } from "./orientation.mjs";
import { Refused } from "./refused.mjs";

const HEADER_BYTES = 348, BEGIN = 352;
const SINGLE = "n+1", PAIR = "ni1";
const DIM_AT = 40, DATATYPE_AT = 70, BITS_AT = 72, PIXDIM_AT = 76, BEGIN_AT = 108, SLOPE_AT = 112, UNITS_AT = 123;
const QFORM_AT = 252, SFORM_AT = 254, QUATERNION_AT = 256, ROWS_AT = 280, MAGIC_AT = 344;
// code: [bytes, reader of one number, numbers of a voxel]
const TYPES = {
  2: [1, "getUint8"], 4: [2, "getInt16"], 8: [4, "getInt32"], 16: [4, "getFloat32"], 64: [8, "getFloat64"],
  256: [1, "getInt8"], 512: [2, "getUint16"], 768: [4, "getUint32"], 1024: [8, "getBigInt64"], 1280: [8, "getBigUint64"],
  128: [1, "getUint8", 3], 2304: [1, "getUint8", 4],
};
const LEAST_SLOPE = 2 ** -52; // below, ITK takes the slope for 1, but adds the intercept all the same
const MM = { 1: 1000, 3: 0.001 }; // of a metre, of a micrometre

// Of the unit of a header's numbers.
export const mmOf = (header) => MM[header.units & 7] ?? 1;

export function isNifti(bytes) {
  const magic = new TextDecoder().decode(bytes.subarray(MAGIC_AT, MAGIC_AT + 3));
  return bytes.length >= HEADER_BYTES && (magic === SINGLE || magic === PAIR);
}

// bytes: Uint8Array -> { size: [x, y, z], dimensions, channels, voxels: Float32Array (channels, z, y, x), spacing in mm,
// header }, header being what places the voxels in space.
export function readNifti(bytes, name) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const little = view.getInt32(0, true) === HEADER_BYTES;
  if (!little && view.getInt32(0) !== HEADER_BYTES) throw new Refused(`${name}: has a damaged header.`);
  if (new TextDecoder().decode(bytes.subarray(MAGIC_AT, MAGIC_AT + 3)) === PAIR)
    throw new Refused(`${name}: is one half of a pair of files, .hdr and .img. One file, .nii or .nii.gz, is needed.`);
  const dim = numbersAt(view, DIM_AT, 8, "getInt16", 2, little);
  const begin = view.getFloat32(BEGIN_AT, little);
  const used = dim.slice(1, 1 + Math.max(0, Math.min(7, dim[0])));
  if (dim[0] < 1 || dim[0] > 7 || Math.min(...used) < 1 || !(begin >= HEADER_BYTES && begin < 2 ** 31))
    throw new Refused(`${name}: has a damaged header.`);
  const [x, y = 1, z = 1, ...more] = used;
  if (more.slice(1).some((size) => size > 1))
    throw new Refused(`${name}: has ${used.length} dimensions, ${used.join(" x ")}. Up to 3 are needed, or 4 with channels along the last.`);
  const code = view.getInt16(DATATYPE_AT, little);
  if (!TYPES[code])
    throw new Refused(`${name}: has voxels of NIfTI's type ${code}. Integers, floats of 32 or 64 bits, or RGB are needed.`);
  const [width, get, components = 1] = TYPES[code];
  const channels = more.reduce((a, b) => a * b, components), plane = x * y * z;
  const missing = begin + plane * channels * width - bytes.length;
  if (missing > 0) throw new Refused(`${name}: is incomplete: ${missing} bytes of its voxels are missing.`);
  const [slope, intercept] = scaling(numbersAt(view, SLOPE_AT, 2, "getFloat32", 4, little));
  if (components > 1 && (slope !== 1 || intercept !== 0))
    throw new Refused(`${name}: holds colours with a scale (scl_slope, scl_inter). Save the scaled values, without a scale.`);
  const voxels = new Float32Array(plane * channels);
  for (let i = 0, at = begin; i < voxels.length; ++i, at += width) {
    const value = Number(view[get](at, little));
    // A voxel's colours lie next to one another, channels one after the other: those of a volume, then of the next.
    const volume = Math.floor(i / (components * plane)), voxel = Math.floor(i / components) % plane;
    const to = (volume * components + (i % components)) * plane + voxel;
    voxels[to] = value * slope + intercept;
    if (!Number.isFinite(voxels[to])) throw new Refused(`${name}: has NaN or infinite voxels.`);
  }
  const pixdim = numbersAt(view, PIXDIM_AT, 8, "getFloat32", 4, little);
  const header = {
    pixdim,
    units: view.getUint8(UNITS_AT),
    qform: view.getInt16(QFORM_AT, little),
    sform: view.getInt16(SFORM_AT, little),
    quaternion: numbersAt(view, QUATERNION_AT, 6, "getFloat32", 4, little),
    rows: numbersAt(view, ROWS_AT, 12, "getFloat32", 4, little),
  };
  const mm = mmOf(header);
  const spacing = pixdim.slice(1, 4).map((step) => (Number.isFinite(step) && step !== 0 ? Math.abs(step) : 1) * mm);
  if (isSheared(header))
    throw new Refused(`${name}: its header (sform) places it with axes that are not at right angles. Resample it onto such first.`);
  return { size: [x, y, z], dimensions: dim[0] < 3 ? 2 : 3, channels, voxels, spacing, header };
}

const scaling = ([slope, intercept]) => [
  Number.isFinite(slope) && Math.abs(slope) >= LEAST_SLOPE ? slope : 1,
  Number.isFinite(intercept) ? intercept : 0,
];

const numbersAt = (view, at, count, get, width, little) =>
  Array.from({ length: count }, (_, i) => view[get](at + i * width, little));

// Labels (z, y, x), Uint8Array or Uint16Array, where the image was. Returns the file's bytes.
export function writeNifti({ size, dimensions, header }, labels) {
  const bytes = new Uint8Array(BEGIN + labels.byteLength), view = new DataView(bytes.buffer);
  const put = (at, set, width, values) => values.forEach((value, i) => view[set](at + i * width, value, true));
  view.setInt32(0, HEADER_BYTES, true);
  put(DIM_AT, "setInt16", 2, [dimensions, ...size, 1, 1, 1, 1]);
  put(DATATYPE_AT, "setInt16", 2, [labels.BYTES_PER_ELEMENT === 1 ? 2 : 512, 8 * labels.BYTES_PER_ELEMENT]);
  put(PIXDIM_AT, "setFloat32", 4, [...header.pixdim.slice(0, 4), 1, 1, 1, 1]);
  put(BEGIN_AT, "setFloat32", 4, [BEGIN, 1, 0]);
  view.setUint8(UNITS_AT, header.units);
  put(QFORM_AT, "setInt16", 2, [header.qform, header.sform]);
  put(QUATERNION_AT, "setFloat32", 4, header.quaternion);
  put(ROWS_AT, "setFloat32", 4, header.rows);
  bytes.set(new TextEncoder().encode(SINGLE), MAGIC_AT);
  bytes.set(new Uint8Array(labels.buffer, labels.byteOffset, labels.byteLength), BEGIN);
  return bytes;
}

// Of a picture, as SimpleITK places it: pixels of 1 mm, rows from the top.
export const flatHeader = () => ({
  pixdim: [1, 1, 1, 1, 1, 1, 1, 1],
  units: 2,
  qform: 1,
  sform: 1,
  quaternion: [0, 0, 1, 0, 0, 0],
  rows: [-1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1, 0],
});
