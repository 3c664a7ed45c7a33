// From the files that a user gives to what the model takes, as lightm-runtime reads them (images.py); or a refusal that
// says what is needed.
import { inflate, isGzip } from "./gzip.mjs";
import { isJpeg, readJpeg } from "./jpeg.mjs";
import { flatHeader, isNifti, readNifti, mmOf } from "./nifti.mjs";
import { orientationOf, placeOf, turning } from "./orientation.mjs";
import { isPng, readPng } from "./png.mjs";
import { Refused } from "./refused.mjs";

const FLAT = "NaturalImage2DIO";
const REORIENTED = ["SimpleITKIOWithReorient", "NibabelIOWithReorient"];
const NIBABEL = ["NibabelIO", "NibabelIOWithReorient"];
const FLAT_SPACING = [999, 1, 1]; // what nnU-Net calls the spacing of a natural image
const THICK = 999; // the thickness of a 2D medical image, in pixels
const TOLERANCE = 1e-3; // of a voxel, for the geometry of channels
const SUFFIX = /^(.*)_(\d{4})\.[a-z.]+$/is; // CASE_0000.nii.gz

// files: File objects, one for each channel or one with all. pipeline: the bundle's. Returns { name, sources, voxels, size:
// [x, y, z], dimensions, spacing, header, input, back }: what is shown, which file each channel is of, what the engine
// takes, and the labels' way back.
export async function readImage(files, pipeline) {
  const channels = pipeline.input.channels.map(({ name }) => name);
  const sorted = inOrder([...files], channels);
  const images = [];
  for (const file of sorted) images.push(await readFile(file));
  const sources = sorted.map(({ name }, i) => ({ channel: channels[i], file: name }));
  const image = { ...images[0], name: sorted[0].name, sources, voxels: together(images, sorted) };
  check(image, sorted, channels, pipeline);
  image.doubt = image.dimensions === 3 ? orientationOf(image.header).doubt : null;
  return { ...image, ...forEngine(image, pipeline) };
}

// The files of one image, a channel each: by nnU-Net's numbers where they have some, else as they were given, which the page
// shows. With a wrong file in a channel's place the network would see noise, and nobody would know.
function inOrder(files, channels) {
  if (files.length < 2) return files;
  if (channels.length === 1) throw new Refused(`${files.length} files: the model takes one image at a time.`);
  const needed = channels.map((channel, i) => `_${String(i).padStart(4, "0")} (${channel})`);
  const names = files.map(({ name }) => name);
  const refuse = (fault) => {
    throw new Refused(`${names.join(", ")}: ${fault} One image is needed, its files ${needed.join(", ")}, or one with all.`);
  };
  const parts = names.map((name) => SUFFIX.exec(name));
  const plain = names.filter((_, i) => !parts[i]);
  if (plain.length === files.length) {
    if (files.length !== channels.length) refuse(`${files.length} files for ${channels.length} channels.`);
    return files;
  }
  if (plain.length) refuse(`${plain.join(", ")} has no number of a channel.`);
  const cases = [...new Set(parts.map(([, stem]) => stem))];
  if (cases.length > 1) refuse(`are of ${cases.length} images, ${cases.join(" and ")}.`);
  const numbers = parts.map(([, , digits]) => Number(digits));
  const missing = needed.filter((_, i) => !numbers.includes(i));
  if (missing.length) refuse(`${missing.join(", ")} is missing.`);
  if (files.length !== channels.length) refuse(`${files.length} files for ${channels.length} channels.`);
  return needed.map((_, i) => files[numbers.indexOf(i)]);
}

async function readFile(file) {
  let bytes;
  try {
    bytes = new Uint8Array(await file.arrayBuffer());
  } catch (error) {
    throw new Refused(`${file.name}: cannot be read: it is a folder, too large for this browser, or gone.`);
  }
  if (isGzip(bytes)) bytes = await inflate(bytes, "gzip", file.name);
  if (isNifti(bytes)) return readNifti(bytes, file.name);
  if (isPng(bytes)) return flat(await readPng(bytes, file.name));
  if (isJpeg(bytes)) return flat(await readJpeg(bytes, file.name));
  const dicom = new TextDecoder().decode(bytes.subarray(128, 132)) === "DICM";
  throw new Refused(
    `${file.name}: ${dicom ? "is DICOM" : "is not an image that this page reads"}. PNG, JPEG, NIfTI (.nii) or compressed ` +
      `NIfTI (.nii.gz) is needed${dicom ? "; dcm2niix converts a series" : ""}.`,
  );
}

const flat = ({ width, height, channels, values }) => ({
  ...{ size: [width, height, 1], dimensions: 2, channels, voxels: values, spacing: [1, 1, 1], header: flatHeader() },
  picture: true,
});

// (channels, z, y, x) of one or several files on one grid.
function together(images, files) {
  const [first] = images;
  if (images.length === 1) return first.voxels;
  images.forEach((image, i) => {
    const same = image.size.every((size, axis) => size === first.size[axis]) && image.dimensions === first.dimensions;
    const near = (a, b) => a.every((value, j) => Math.abs(value - b[j]) <= TOLERANCE * Math.min(...first.spacing) + 1e-5 * Math.abs(value));
    if (!same || !near(first.spacing, image.spacing) || !liesAs(first, image, near))
      throw new Refused(`${files[0].name} and ${files[i].name}: differ in size or place. The channels of one image agree.`);
  });
  const voxels = new Float32Array(images.reduce((sum, image) => sum + image.voxels.length, 0));
  let at = 0;
  for (const image of images) voxels.set(image.voxels, (at += image.voxels.length) - image.voxels.length);
  return voxels;
}

// Whether two headers place their voxels alike, in whichever form each of them does.
function liesAs(first, image, near) {
  const [a, b] = [first, image].map(({ header }) => placeOf(header));
  const origin = ({ header }, place) => place.origin.map((value) => value * mmOf(header));
  const apart = a.columns.flat().map((value, i) => Math.abs(value - b.columns.flat()[i]));
  return Math.max(...apart) <= TOLERANCE && near(origin(first, a), origin(image, b));
}

function check(image, files, channels, pipeline) {
  const { input, network } = pipeline, found = image.voxels.length / image.size.reduce((a, b) => a * b, 1);
  const names = files.map(({ name }) => name).join(", ");
  if (found !== channels.length)
    throw new Refused(
      `${names}: ${found} ${found === 1 ? "channel" : "channels"}; the model takes ${channels.length}: ${channels.join(", ")}` +
        (channels.length > 1 ? ", one file each or one file with all." : "."),
    );
  if (network.spatial_dims === 3 && image.dimensions === 2)
    throw new Refused(`${names}: is a 2D image; the model was trained on volumes.`);
  if (input.reader === FLAT && image.dimensions === 3)
    throw new Refused(`${names}: has 3 dimensions; the model was trained on 2D images.`);
}

// What the engine takes: axes (z, y, x), turned where the reader of the training turns.
function forEngine(image, { input: { reader } }) {
  const reversed = ([x, y, z]) => [z, y, x];
  // nnU-Net's nibabel readers take a header's numbers for mm, whatever their unit.
  const unit = NIBABEL.includes(reader) ? mmOf(image.header) : 1;
  const steps = image.spacing.map((step) => step / unit);
  if (image.dimensions === 3 && REORIENTED.includes(reader)) {
    const turn = turning({ ...image, spacing: steps }, image.name, NIBABEL.includes(reader));
    const input = { voxels: turn.there(image.voxels), shape: reversed(turn.size), spacing: reversed(turn.spacing) };
    return { input, back: turn.back };
  }
  const [x, y, z] = steps;
  const spacing = image.dimensions === 3 ? [z, y, x] : reader === FLAT ? FLAT_SPACING : [Math.max(x, y) * THICK, y, x];
  return { input: { voxels: image.voxels.slice(), shape: reversed(image.size), spacing }, back: (labels) => labels };
}
