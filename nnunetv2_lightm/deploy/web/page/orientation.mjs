// Which way the axes of a volume run in the patient. Anatomical axes are to the Right, to the front (Anterior), and up
// (Superior), as in NIfTI; a volume is turned by whole axes only.
import { Refused } from "./refused.mjs";

// Columns of the qform's rotation, nifti_quatern_to_mat44; the last one changes sign with qfac.
function columnsOfQform({ pixdim, quaternion: [b, c, d] }) {
  const a = Math.sqrt(Math.max(0, 1 - b * b - c * c - d * d)), factor = pixdim[0] < 0 ? -1 : 1;
  return [
    [a * a + b * b - c * c - d * d, 2 * (b * c + a * d), 2 * (b * d - a * c)],
    [2 * (b * c - a * d), a * a + c * c - b * b - d * d, 2 * (c * d + a * b)],
    [2 * (b * d + a * c), 2 * (c * d - a * b), a * a + d * d - c * c - b * b].map((value) => factor * value),
  ];
}

const columnsOfSform = ({ rows }) => [0, 1, 2].map((column) => [0, 1, 2].map((row) => rows[4 * row + column]));

const unitOf = (column) => column.map((value) => value / (Math.hypot(...column) || 1));

// Of unit columns; ITK's own limit lies between 0.00003 and 0.0001.
const MOST_SHEAR = 3e-5;

function atRightAngles(columns) {
  const units = columns.map(unitOf);
  const across = (a, b) => Math.abs(units[a].reduce((sum, value, i) => sum + value * units[b][i], 0)) > MOST_SHEAR;
  return columns.every((column) => Math.hypot(...column) > 0) && !(across(0, 1) || across(0, 2) || across(1, 2));
}

// Whether the axes of the header that counts are not at right angles: ITK refuses such images.
export const isSheared = (header) => header.qform <= 0 && header.sform > 0 && !atRightAngles(columnsOfSform(header));

// Of a volume whose header says nothing, as SimpleITK takes it: x to the left, y to the back.
const UNKNOWN = [[-1, 0, 0], [0, -1, 0], [0, 0, 1]];
const SCANNER = 1; // the sform_code with which ITK prefers the sform; nibabel always does

// Where the file's axes run, and its first voxel, by the form that counts for ITK: { columns, origin } in the header's unit.
export function placeOf(header) {
  const { pixdim, qform, sform, quaternion, rows } = header;
  const bySform = sform > 0 && (qform <= 0 || (sform === SCANNER && atRightAngles(columnsOfSform(header))));
  const columns = bySform ? columnsOfSform(header).map(unitOf) : qform > 0 ? columnsOfQform(header) : UNKNOWN;
  const origin = bySform ? [rows[3], rows[7], rows[11]] : qform > 0 ? quaternion.slice(3) : [0, 0, 0];
  // ITK turns an axis round whose pixel is of negative size, whatever the header says of its direction.
  return { columns: columns.map((column, axis) => column.map((value) => (pixdim[axis + 1] < 0 ? -value : value))), origin };
}

// For each anatomical axis, the axis of the file that is nearest to it, and whether that runs the other way.
function nearest(columns) {
  const pairs = columns.map(unitOf).flatMap((column, axis) => column.map((value, anatomical) => ({ axis, anatomical, value })));
  const found = [];
  for (const { axis, anatomical, value } of pairs.sort((p, q) => Math.abs(q.value) - Math.abs(p.value)))
    if (!found[anatomical] && !found.some((other) => other?.axis === axis)) found[anatomical] = { axis, reversed: value < 0 };
  return found;
}

const CONTRADICTION = "its header places it in two ways, qform and sform, that contradict each other";
const NEGATIVE = "its header has pixels of negative size (pixdim), which some readers flip and others do not";
const SILENT = "its header does not say how it lies (qform_code and sform_code are 0)";

// header: of readNifti(). Returns [{ axis, reversed }] for R, A, S, as ITK sees it; doubt: why nibabel may see it otherwise,
// or null.
export function orientationOf(header) {
  const forms = [];
  if (header.qform > 0) forms.push(columnsOfQform(header));
  if (header.sform > 0) forms.push(columnsOfSform(header));
  const found = new Set(forms.map((columns) => JSON.stringify(nearest(columns))));
  const negative = header.pixdim.slice(1, 4).some((step) => step < 0);
  const doubt = found.size > 1 ? CONTRADICTION : found.size === 0 ? SILENT : negative ? NEGATIVE : null;
  return { axes: nearest(placeOf(header).columns), doubt };
}

// What a reader that turns images to RAS first gives, and the way back for the labels. byNibabel: nnU-Net's reader.
export function turning({ size, spacing, header }, name, byNibabel) {
  const { axes, doubt } = orientationOf(header);
  if (doubt && (byNibabel || doubt === CONTRADICTION)) throw new Refused(`${name}: ${doubt}.`);
  const stride = [1, size[0], size[0] * size[1]];
  const turned = axes.map(({ axis }) => size[axis]);
  const steps = axes.map(({ axis, reversed }) => (reversed ? -stride[axis] : stride[axis]));
  const first = axes.reduce((sum, { axis, reversed }) => sum + (reversed ? (size[axis] - 1) * stride[axis] : 0), 0);
  // Calls f(place in the turned volume, place in the file).
  const each = (f) => {
    for (let z = 0, to = 0; z < turned[2]; ++z)
      for (let y = 0; y < turned[1]; ++y)
        for (let x = 0, from = first + z * steps[2] + y * steps[1]; x < turned[0]; ++x, from += steps[0]) f(to++, from);
  };
  const count = size[0] * size[1] * size[2];
  return {
    size: turned,
    spacing: axes.map(({ axis }) => spacing[axis]),
    there(voxels) {
      const result = new Float32Array(voxels.length);
      for (let first = 0; first < voxels.length; first += count) each((to, from) => (result[first + to] = voxels[first + from]));
      return result;
    },
    back(labels) {
      const result = new labels.constructor(labels.length);
      each((to, from) => (result[from] = labels[to]));
      return result;
    },
  };
}
