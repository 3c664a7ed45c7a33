// A worker: it leads a segmentation, or runs passes of the network for the one that does.
import { mostLabel, parseBundle } from "./bundle.mjs";
import { conduct } from "./conduct.mjs";
import { Engine, EngineRefused, Passes, Segmentation } from "./engine.mjs";

async function lead({ module, bundle, image, ports }) {
  const model = parseBundle(bundle);
  const engine = await Engine.start(module, model);
  const segmentation = new Segmentation(engine, image, mostLabel(model.pipeline) > 255 ? 2 : 1);
  const progress = (done, total) => self.postMessage({ done, total });
  const labels = await conduct(segmentation, model.folds.length, ports, progress);
  self.postMessage({ labels }, [labels.buffer]);
}

async function help({ module, bundle, port }) {
  const model = parseBundle(bundle);
  // Made with the first pass: what then fails is reported as the pass's.
  let passes = null;
  port.onmessage = async ({ data: { id, fold, input } }) => {
    try {
      passes ??= new Passes(await Engine.start(module, model), model);
      const logits = passes.run(fold, input);
      port.postMessage({ id, logits }, [logits.buffer]);
    } catch (error) {
      if (error instanceof EngineRefused) port.postMessage({ id, status: error.status });
      else fail(error);
    }
  };
}

const fail = (error) => self.postMessage({ failed: error.message, refused: error instanceof EngineRefused });

self.onmessage = ({ data }) => (data.port ? help(data) : lead(data)).catch(fail);
