// JPEG, decoded by the browser: without what would turn the picture or change its colours, of which other readers know
// nothing.
import { Refused } from "./refused.mjs";

const START = 0xd8, SCAN = 0xda, JFIF = 0xe0, ADOBE = 0xee;
const isApplication = (marker) => marker >= 0xe0 && marker <= 0xef;
// SOF0 ... SOF15 without DHT, JPG and DAC.
const isFrame = (marker) => marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);

export const isJpeg = (bytes) => bytes[0] === 0xff && bytes[1] === START && bytes[2] === 0xff;

// bytes: Uint8Array -> { width, height, channels, values: Float32Array (channels, height, width) }.
export async function readJpeg(bytes, name) {
  const { parts, components } = bare(bytes, name);
  if (components !== 1 && components !== 3) throw new Refused(`${name}: has ${components} colours. Grey or RGB is needed.`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob(parts, { type: "image/jpeg" }), { colorSpaceConversion: "none" });
  } catch (error) {
    throw new Refused(`${name}: is damaged or incomplete: the browser cannot decode it.`);
  }
  const { width, height } = bitmap;
  const context = contextOf(width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  const values = new Float32Array(components * width * height);
  for (let c = 0; c < components; ++c)
    for (let i = 0; i < width * height; ++i) values[c * width * height + i] = data[4 * i + c];
  return { width, height, channels: components, values };
}

// The file without EXIF (orientation) and colour profiles, and its number of colours.
function bare(bytes, name) {
  const parts = [bytes.subarray(0, 2)];
  let components = 0;
  for (let at = 2; ; ) {
    const marker = bytes[at + 1], length = (bytes[at + 2] << 8) | bytes[at + 3];
    if (bytes[at] !== 0xff || at + 2 + length > bytes.length) throw new Refused(`${name}: is damaged or incomplete.`);
    if (isFrame(marker)) components = bytes[at + 9];
    if (marker === SCAN) return { parts: [...parts, bytes.subarray(at)], components };
    if (!isApplication(marker) || marker === JFIF || marker === ADOBE) parts.push(bytes.subarray(at, at + 2 + length));
    at += 2 + length;
  }
}

// Some browsers change what a page reads from a canvas, so that it cannot tell machines apart: labels would change too.
function contextOf(width, height) {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  const test = context.createImageData(16, 16);
  for (let i = 0; i < test.data.length; ++i) test.data[i] = i % 4 === 3 ? 255 : (37 * i) % 256;
  context.putImageData(test, 0, 0);
  if (context.getImageData(0, 0, 16, 16).data.some((value, i) => value !== test.data[i] && (i >> 2) % 16 < width && i >> 6 < height))
    throw new Refused("This browser changes the pixels that a page reads (protection against fingerprinting). Convert the image to PNG.");
  return context;
}
