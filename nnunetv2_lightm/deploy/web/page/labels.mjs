// Names, colours and sizes of the labels.

// Okabe and Ito's colours, which people with any colour blindness tell apart; then Tol's "muted" ones.
const COLOURS = [
  ...["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"],
  ...["#88ccee", "#44aa99", "#ddcc77", "#117733", "#cc6677", "#882255", "#aa4499"],
];

export const colourOf = (label) => COLOURS[(label - 1) % COLOURS.length];

export const rgbOf = (label) => [1, 3, 5].map((at) => parseInt(colourOf(label).slice(at, at + 2), 16));

// [{ name, values }] of all labels or regions but the background.
export function labelsOf({ output }) {
  return Object.entries(output.labels)
    .map(([name, value]) => ({ name, values: [value].flat() }))
    .filter(({ values }) => values.length !== 1 || values[0] !== 0);
}

// Voxels of each of labelsOf(), in its order.
export function countsOf(labels, pipeline) {
  const counts = [];
  for (const label of labels) counts[label] = (counts[label] ?? 0) + 1;
  return labelsOf(pipeline).map(({ values }) => values.reduce((sum, value) => sum + (counts[value] ?? 0), 0));
}

// The size of some voxels in words: ml; mm² where the file says how large a pixel is; else the share of the picture.
export function amountOf(count, { dimensions, spacing: [x, y, z], size, picture }) {
  if (dimensions === 3) return `${((count * x * y * z) / 1000).toFixed(3)} ml`;
  return picture ? `${((100 * count) / (size[0] * size[1])).toFixed(2)} %` : `${(count * x * y).toFixed(1)} mm²`;
}
