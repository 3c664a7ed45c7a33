// PNG, read and written without a canvas: a canvas has 8 bits, and may manage colours. Values as imageio gives them,
// by which nnU-Net reads pictures.
import { deflate, inflate } from "./gzip.mjs";
import { Refused } from "./refused.mjs";

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const GREY = 0, PALETTE = 3, GREY_ALPHA = 4;
const CHANNELS = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 }; // of a type of colour
const DEPTHS = { 0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16] };
// First pixel and distance of each pass: [x, y, dx, dy].
const WHOLE = [[0, 0, 1, 1]];
const ADAM7 = [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];

export const isPng = (bytes) => SIGNATURE.every((value, i) => bytes[i] === value);

// bytes: Uint8Array -> { width, height, channels, values: Float32Array (channels, height, width) }.
export async function readPng(bytes, name) {
  const { chunks, width, height, depth, colour, interlaced } = parse(bytes, name);
  if (chunks.acTL && new DataView(chunks.acTL[0].buffer, chunks.acTL[0].byteOffset).getUint32(0) > 1)
    throw new Refused(`${name}: is an animation. Save one of its images.`);
  if (colour === GREY_ALPHA && depth === 8)
    throw new Refused(`${name}: is grey with transparency, which nnU-Net does not read. Save it without transparency.`);
  const packed = await inflate(joined(chunks.IDAT ?? []), "deflate", name);
  const samples = CHANNELS[colour], bits = samples * depth;
  const pixels = new Float32Array(width * height * samples);
  const passes = interlaced ? ADAM7 : WHOLE;
  let at = 0;
  for (const [x0, y0, dx, dy] of passes) {
    const columns = Math.ceil((width - x0) / dx), rows = Math.ceil((height - y0) / dy);
    if (columns <= 0 || rows <= 0) continue;
    const stride = Math.ceil((columns * bits) / 8);
    if (at + rows * (stride + 1) > packed.length) throw new Refused(`${name}: is incomplete: it lacks pixels.`);
    let above = new Uint8Array(stride);
    for (let row = 0; row < rows; ++row, at += stride + 1) {
      const line = packed.subarray(at + 1, at + 1 + stride);
      if (!unfilter(packed[at], line, above, Math.max(1, bits >> 3))) throw new Refused(`${name}: is damaged.`);
      const start = (y0 + row * dy) * width + x0;
      for (let i = 0; i < columns * samples; ++i) {
        const column = Math.floor(i / samples);
        pixels[(start + column * dx) * samples + (i % samples)] = sampleOf(line, i, depth);
      }
      above = line;
    }
  }
  const form = { samples, colour, depth, palette: chunks.PLTE?.[0] };
  return { width, height, ...planesOf(pixels, form, name) };
}

function parse(bytes, name) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), chunks = {};
  let type = "";
  for (let at = SIGNATURE.length; type !== "IEND"; ) {
    const length = at + 12 <= bytes.length ? view.getUint32(at) : Infinity;
    if (at + 12 + length > bytes.length) throw new Refused(`${name}: is incomplete.`);
    type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (crc32(bytes.subarray(at + 4, at + 8 + length)) !== view.getUint32(at + 8 + length))
      throw new Refused(`${name}: is damaged: the checksum of its part ${type} is wrong.`);
    (chunks[type] ??= []).push(bytes.subarray(at + 8, at + 8 + length));
    at += 12 + length;
  }
  const head = chunks.IHDR?.[0];
  if (head?.length !== 13) throw new Refused(`${name}: is damaged: it does not begin as a PNG file does.`);
  const size = new DataView(head.buffer, head.byteOffset);
  const [depth, colour, , , interlaced] = head.subarray(8);
  const [width, height] = [size.getUint32(0), size.getUint32(4)];
  if (!DEPTHS[colour]?.includes(depth) || !width || !height || interlaced > 1) throw new Refused(`${name}: is damaged.`);
  return { chunks, width, height, depth, colour, interlaced };
}

// Undoes a line's filter, in place; false: there is no such filter.
function unfilter(filter, line, above, step) {
  for (let i = 0; i < line.length; ++i) {
    const a = i < step ? 0 : line[i - step], b = above[i], c = i < step ? 0 : above[i - step];
    if (filter === 1) line[i] += a;
    else if (filter === 2) line[i] += b;
    else if (filter === 3) line[i] += (a + b) >> 1;
    else if (filter === 4) line[i] += paeth(a, b, c);
  }
  return filter <= 4;
}

function paeth(a, b, c) {
  const pa = Math.abs(b - c), pb = Math.abs(a - c), pc = Math.abs(a + b - 2 * c);
  return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
}

function sampleOf(line, i, depth) {
  if (depth === 8) return line[i];
  if (depth === 16) return line[2 * i] * 256 + line[2 * i + 1];
  const bit = i * depth;
  return (line[bit >> 3] >> (8 - depth - (bit & 7))) & ((1 << depth) - 1);
}

// Channel by channel. As imageio has it, palettes become RGB without their transparency, colours of 16 bits lose the lower 8,
// and of grey 2 or 4 bits are spread over 8, but one bit is 0 or 1.
function planesOf(pixels, { samples, colour, depth, palette }, name) {
  const count = pixels.length / samples;
  if (colour === PALETTE && (!palette || pixels.some((index) => 3 * index + 2 >= palette.length)))
    throw new Refused(`${name}: is damaged: it lacks colours.`);
  const [channels, valueAt] = {
    [GREY]: [1, (_, pixel) => pixels[pixel] * (depth === 2 || depth === 4 ? 255 / (2 ** depth - 1) : 1)],
    [PALETTE]: [3, (channel, pixel) => palette[3 * pixels[pixel] + channel]],
    [GREY_ALPHA]: [4, (channel, pixel) => pixels[2 * pixel + (channel < 3 ? 0 : 1)] >> 8],
  }[colour] ?? [samples, (channel, pixel) => pixels[samples * pixel + channel] >> (depth - 8)];
  const values = Float32Array.from({ length: channels * count }, (_, i) => valueAt(Math.floor(i / count), i % count));
  return { channels, values };
}

function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) whole.set(part, (at += part.length) - part.length);
  return whole;
}

// Grey of 8 or 16 bits; values: Uint8Array or Uint16Array (height, width). Returns the file's bytes.
export async function writePng(width, height, values) {
  const bytes = values.BYTES_PER_ELEMENT, lines = new Uint8Array(height * (1 + width * bytes));
  const view = new DataView(lines.buffer);
  for (let y = 0, at = 0; y < height; ++y) {
    ++at; // no filter
    for (let x = 0; x < width; ++x, at += bytes)
      bytes === 1 ? view.setUint8(at, values[y * width + x]) : view.setUint16(at, values[y * width + x]);
  }
  const head = new Uint8Array(13), sizes = new DataView(head.buffer);
  sizes.setUint32(0, width);
  sizes.setUint32(4, height);
  head[8] = 8 * bytes;
  const packed = await deflate(lines, "deflate");
  return joined([Uint8Array.from(SIGNATURE), chunk("IHDR", head), chunk("IDAT", packed), chunk("IEND", new Uint8Array(0))]);
}

function chunk(type, content) {
  const whole = new Uint8Array(12 + content.length), view = new DataView(whole.buffer);
  view.setUint32(0, content.length);
  whole.set(new TextEncoder().encode(type), 4);
  whole.set(content, 8);
  view.setUint32(8 + content.length, crc32(whole.subarray(4, 8 + content.length)));
  return whole;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; ++k) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
