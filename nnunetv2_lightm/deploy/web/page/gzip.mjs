// Compressed data, by the browser.
import { Refused } from "./refused.mjs";

async function through(bytes, transform) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(transform)).arrayBuffer());
}

// format: "gzip", or "deflate" for zlib's. A damaged or incomplete stream is refused, in the name of the file.
export async function inflate(bytes, format, name) {
  try {
    return await through(bytes, new DecompressionStream(format));
  } catch (error) {
    throw new Refused(`${name}: is damaged or incomplete: its compressed data end early or do not fit their checksum.`);
  }
}

export const deflate = (bytes, format) => through(bytes, new CompressionStream(format));

export const isGzip = (bytes) => bytes[0] === 0x1f && bytes[1] === 0x8b;
