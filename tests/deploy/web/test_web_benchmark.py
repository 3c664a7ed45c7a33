"""The benchmark of the page: what it measures in the browser, and that onnxruntime-web gets its threads."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

web = pytest.importorskip(
    "benchmarks.speed.web", reason="playwright is not installed: pip install '.[test]'", exc_type=ModuleNotFoundError
)
pytestmark = pytest.mark.slow

# In the place of onnxruntime-web: fails unless it is called as the benchmark should call it.
RUNTIME = """
const check = (what, right) => { if (!right) throw new Error(what); };
const ort = {
  env: { wasm: {} },
  Tensor: class { constructor(type, values, shape) { Object.assign(this, { type, values, shape }); } },
  InferenceSession: {
    async create(model, { executionProviders }) {
      check("model", (await (await fetch(model)).text()) === "a model" && executionProviders[0] === "wasm");
      check("threads", ort.env.wasm.numThreads === 2 && globalThis.crossOriginIsolated);
      return {
        inputNames: ["image"],
        async run({ image }) {
          check("input", image.shape.join() === "1,2,3,4" && image.values.length === 24);
          await new Promise((resolve) => setTimeout(resolve, 100));
        },
      };
    },
  },
};
"""


def measured(function, *arguments):
    """On a thread of its own: Playwright allows one browser a thread, and other tests may have one here."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(function, *arguments).result()


def test_the_page_is_timed_to_its_labels(chromium, page_of, bundle_of):
    _, (image,) = bundle_of("picture")
    passes, seconds, mib = measured(web.segment, page_of("picture"), image, 2)
    assert passes == 4  # two tiles, mirrored along one axis
    assert seconds > 0 and mib > 10


def test_a_refused_image_ends_the_benchmark(chromium, page_of, tmp_path):
    file = tmp_path / "image.png"
    file.write_bytes(b"no image")
    with pytest.raises(SystemExit, match=r"image\.png"):
        measured(web.segment, page_of("picture"), file, 1)


def test_passes_of_onnxruntime_web_are_timed(chromium, tmp_path):
    (tmp_path / "onnx").mkdir()
    pipeline = {"input": {"channels": ["a", "b"]}, "inference": {"patch_size": [3, 4]}}
    (tmp_path / "onnx" / "pipeline.json").write_text(json.dumps(pipeline))
    (tmp_path / "model.onnx").write_text("a model")
    (tmp_path / web.PARTS[0]).write_text(RUNTIME)
    seconds, mib = measured(web.run_onnx, tmp_path, 3, 2)
    assert 0.3 <= seconds < 30 and mib > 10


def test_report(chromium):
    rows = [("the page", 6_400_000, [(2.0, 300.0), (1.5, 310.0)]), ("the other", 30_000_000, [(6.0, 900.0)])]
    table = measured(web.report, "image.png, 4 passes", rows, 100.0)
    assert "| the page | 1.5 | 1.0 | 6.4 | 210 |" in table
    assert "| the other | 6.0 | 4.0 | 30.0 | 800 |" in table
    assert "Chromium" in table.splitlines()[0]
