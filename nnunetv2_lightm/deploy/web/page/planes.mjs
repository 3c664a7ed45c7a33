// Planes through a volume as radiologists look at them: the patient's right on the left, the front or the head on top.
import { orientationOf } from "./orientation.mjs";

const R = 0, A = 1, S = 2;
// Anatomical axes that run across, to the right and down, and whether the screen runs against them; the letters at the
// left and the top edge.
const PLANES = [
  { name: "Axial", across: S, right: [R, true], down: [A, true], edges: ["R", "A"] },
  { name: "Coronal", across: A, right: [R, true], down: [S, true], edges: ["R", "S"] },
  { name: "Sagittal", across: R, right: [A, true], down: [S, true], edges: ["A", "S"] },
];

// The planes of an image: [{ name, edges, across, right, down }], axes being { axis, step, first, size, mm } in the file's
// order; a 2D image has one, as it is. Edges have no letters where the header leaves doubt: a wrong one is worse.
export function planesOf({ size, spacing, dimensions, header }) {
  const stride = [1, size[0], size[0] * size[1]];
  const along = (axis, reversed) => ({
    ...{ axis, reversed, size: size[axis], mm: spacing[axis] },
    step: reversed ? -stride[axis] : stride[axis],
    first: reversed ? (size[axis] - 1) * stride[axis] : 0,
  });
  if (dimensions === 2)
    return [{ name: "Image", edges: ["", ""], across: along(2, false), right: along(0, false), down: along(1, false) }];
  const { axes, doubt } = orientationOf(header);
  const anatomical = (which, against) => along(axes[which].axis, axes[which].reversed !== against);
  return PLANES.map(({ name, edges, across, right, down }) => ({
    ...{ name, edges: doubt ? ["", ""] : edges, across: anatomical(across, false) },
    ...{ right: anatomical(...right), down: anatomical(...down) },
  }));
}

// Calls f(pixel, voxel) for a plane through `place`, the voxel [x, y, z].
export function eachPixel({ across, right, down }, place, f) {
  const stride = Math.abs(across.step);
  for (let row = 0, pixel = 0; row < down.size; ++row) {
    let voxel = place[across.axis] * stride + right.first + down.first + row * down.step;
    for (let column = 0; column < right.size; ++column, voxel += right.step) f(pixel++, voxel);
  }
}

// Index of the file's axis at a place on the screen, and back.
export const indexAt = ({ size, reversed }, place) => (reversed ? size - 1 - place : place);
