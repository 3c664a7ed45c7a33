// The workers of a segmentation, made for it and ended with it: all their memory goes back, also when it is cancelled.
import { Refused } from "./refused.mjs";

export class Cancelled extends Error {}

// Without SharedArrayBuffer, which a page from disk does not get, a core is a worker with memory of its own.
export const MOST_HELPERS = 8;

// code: URL of the workers' script. image: see Segmentation; its voxels are handed over. Returns the labels.
export async function segment({ code, module, bundle, image, helpers, progress, signal }) {
  const workers = [];
  const start = () => workers[workers.push(new Worker(code)) - 1];
  try {
    return await new Promise((resolve, reject) => {
      const listen = (worker) => {
        worker.onerror = (event) => reject(new Error(event.message || "a worker did not start"));
        worker.onmessage = ({ data }) => {
          if (data.failed !== undefined) reject(data.refused ? new Refused(data.failed) : new Error(data.failed));
          else if (data.labels) resolve(data.labels);
          else progress(data.done, data.total);
        };
        return worker;
      };
      signal.addEventListener("abort", () => reject(new Cancelled()));
      if (signal.aborted) throw new Cancelled();
      const ports = [];
      for (let i = 0; i < helpers; ++i) {
        const { port1, port2 } = new MessageChannel();
        listen(start()).postMessage({ module, bundle, port: port1 }, [port1]);
        ports.push(port2);
      }
      listen(start()).postMessage({ module, bundle, image, ports }, [image.voxels.buffer, ...ports]);
    });
  } finally {
    workers.forEach((worker) => worker.terminate());
  }
}
