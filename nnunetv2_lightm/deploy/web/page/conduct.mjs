// Shares the passes of a segmentation among workers, and adds their logits in the order of nnU-Net, whichever arrives
// first: the labels do not depend on how many workers there are.
import { EngineRefused, NO_MEMORY } from "./engine.mjs";

// segmentation: of engine.mjs. ports: to the workers, which answer { id, logits } to { id, fold, input }, or { id, status }
// where their memory does not suffice; others then do their work. Returns the labels.
export function conduct(segmentation, folds, ports, progress) {
  const { rows, tilesInRow, passesOfTile } = segmentation;
  const inTile = passesOfTile * folds, inRow = tilesInRow * inTile, total = rows * inRow;
  const arrived = new Map(), again = [], idle = new Set();
  let begun = 0, added = 0, alive = ports.length;

  const job = (id) => ({ id, tile: Math.floor(id / inTile), pass: Math.floor((id % inTile) / folds), fold: id % folds });

  const occupy = (port) => {
    // Logits that wait for their turn are bounded.
    if (!again.length && (begun === total || begun - added >= 2 * ports.length)) return void idle.add(port);
    idle.delete(port);
    const { id, tile, pass, fold } = job(again.length ? again.pop() : begun++);
    const input = segmentation.extract(tile, pass);
    port.postMessage({ id, fold, input }, [input.buffer]);
  };

  const addArrived = () => {
    for (; arrived.has(added); ++added) {
      const { tile, pass } = job(added);
      segmentation.add(tile, pass, arrived.get(added));
      arrived.delete(added);
      progress(added + 1, total);
      if ((added + 1) % inRow === 0) segmentation.finishRow((added + 1) / inRow - 1);
    }
  };

  return new Promise((resolve, reject) => {
    const receive = (port, { id, logits, status }) => {
      if (status === NO_MEMORY && --alive > 0) {
        again.push(id);
        return void [...idle].forEach(occupy);
      }
      if (status) throw new EngineRefused(status);
      arrived.set(id, logits);
      addArrived();
      if (added === total) return void resolve(segmentation.labels);
      occupy(port);
      [...idle].forEach(occupy);
    };
    for (const port of ports) {
      port.onmessage = ({ data }) => {
        try {
          receive(port, data);
        } catch (error) {
          reject(error);
        }
      };
      occupy(port);
    }
    progress(0, total);
  });
}
