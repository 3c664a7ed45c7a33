"""The exported page in Chromium, next to onnxruntime-web with stock nnU-Net's network in the same browser.

npm install onnxruntime-web
python -m benchmarks.speed.web --ours MODEL_FOLDER --stock MODEL_FOLDER --image FILE \\
    --onnxruntime-web node_modules/onnxruntime-web/dist -o web.md

Both models share a data set and plans (deploy_models.py makes such models); the image is a case of one channel. All
run on one core, or `--cores`, in turns, each in a browser of its own, `--repeats` times; the smallest time counts. The
page's time is from the choice of the file to the labels: reading, nnU-Net's whole pipeline, mirroring, drawing.
onnxruntime-web's is that of the passes alone, as many as the page runs (one fold), on a patch of random numbers; its
model is loaded before, and it may use as many threads. Memory is the browser's peak, less that of the same browser with
an empty page. Needs the extras web, onnx and test, and Chromium.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from nnunetv2_lightm.measure.machine import machine

from .deploy import SAMPLING, family, resident_mib

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MOST_MS = 1_800_000
PERIOD_S = 0.2
# onnxruntime-web for CPUs; the first is the script.
PARTS = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
PASSES = """
async ({ shape, count, threads }) => {
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmPaths = "./";
  const session = await ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] });
  const values = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, Math.random);
  const pass = () => session.run({ [session.inputNames[0]]: new ort.Tensor("float32", values, shape) });
  await pass();
  const began = performance.now();
  for (let i = 0; i < count; ++i) await pass();
  return (performance.now() - began) / 1000;
}
"""


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    cores = sorted(os.sched_getaffinity(0))[: arguments.cores]
    if len(cores) < arguments.cores:
        raise SystemExit(f"--cores {arguments.cores}: this process may use {len(cores)}")
    os.sched_setaffinity(0, cores)  # and of all that is started from here
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        html, model = export(arguments, work)
        parts = [Path(shutil.copy(arguments.onnxruntime_web / name, work)) for name in PARTS]
        empty, ours, stock = [], [], []
        for turn in range(arguments.repeats):
            empty.append(blank(arguments.cores))
            passes, *measured = segment(html, arguments.image, arguments.cores)
            ours.append(measured)
            stock.append(run_onnx(work, passes, arguments.cores))
            print(f"turn {turn + 1}: page {ours[-1][0]:.2f} s, onnxruntime-web {stock[-1][0]:.2f} s", file=sys.stderr)
        release = json.loads((arguments.onnxruntime_web.parent / "package.json").read_text())["version"]
        rows = [
            ("the page, LightMUNet: file to labels", html.stat().st_size, ours),
            (f"onnxruntime-web {release}, stock network: the passes", sum(map(size_of, (model, *parts))), stock),
        ]
        head = f"{arguments.image.name}, {passes} passes, {arguments.cores} core(s), {arguments.repeats} turns"
        arguments.out.write_text(report(head, rows, max(empty)), encoding="utf-8")
    return 0


def export(arguments: argparse.Namespace, work: Path) -> tuple[Path, Path]:
    """Page of our model and ONNX of stock nnU-Net's, one fold each."""
    command = [str(Path(sys.executable).with_name("nnUNetv2_lightm")), "export"]
    html, onnx = work / "page.html", work / "onnx"
    with tempfile.TemporaryDirectory() as images:
        shutil.copy(arguments.image, images)
        check = ["-f", "0", "--check-images", images]
        weights = ["--float32"] if arguments.float32 else []
        subprocess.run([*command, "--web", str(arguments.ours), str(html), *check, *weights], check=True)
        subprocess.run([*command, "--onnx", str(arguments.stock), str(onnx), *check], check=True)
    return html, (onnx / "fold_0.onnx").rename(work / "model.onnx")


def size_of(path: Path) -> int:
    return path.stat().st_size


def launched(driver: Playwright) -> Browser:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise SystemExit(f"no {' or '.join(BROWSERS)} is installed (Debian, Ubuntu: apt install chromium)")
    return driver.chromium.launch(executable_path=found, args=["--no-sandbox"])


@contextmanager
def browser_page(cores: int) -> Iterator[tuple[Page, list[float]]]:
    """A page of a new browser, and the browser's MiB, sampled on any core until the page is closed."""
    before = set(family(os.getpid()))
    with sync_playwright() as driver:
        browser = launched(driver)
        page, sampled, done = browser.new_page(), [], threading.Event()
        page.add_init_script(f"Object.defineProperty(navigator, 'hardwareConcurrency', {{ get: () => {cores} }})")

        def sample() -> None:
            os.sched_setaffinity(0, range(os.cpu_count()))
            pause = PERIOD_S
            while not done.wait(pause):
                began = time.perf_counter()
                sampled.append(sum(resident_mib(pid) for pid in family(os.getpid()) if pid not in before))
                pause = max(PERIOD_S, (time.perf_counter() - began) / SAMPLING)

        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            yield page, sampled
        finally:
            done.set()
            sampler.join()
            browser.close()


def blank(cores: int) -> float:
    with browser_page(cores) as (page, sampled):
        page.goto("about:blank")
        time.sleep(2)
    return max(sampled)


def segment(html: Path, image: Path, cores: int) -> tuple[int, float, float]:
    """Passes, seconds and MiB of an image on the page."""
    with browser_page(cores) as (page, sampled):
        page.goto(html.as_uri())
        page.wait_for_selector("#files:not([disabled])", state="attached", timeout=MOST_MS)
        began = time.perf_counter()
        page.set_input_files("#files", str(image))
        page.wait_for_selector("#save:not([hidden]), #status.wrong", timeout=MOST_MS)
        seconds = time.perf_counter() - began
        if page.query_selector("#status.wrong"):
            raise SystemExit(page.inner_text("#status"))
        passes = int(page.text_content("#passes").split()[-1])
    return passes, seconds, max(sampled)


def run_onnx(folder: Path, passes: int, cores: int) -> tuple[float, float]:
    """Seconds of that many passes of the network, and MiB."""
    (folder / "index.html").write_text(f'<!DOCTYPE html><script src="{PARTS[0]}"></script>', encoding="utf-8")
    pipeline = json.loads((folder / "onnx" / "pipeline.json").read_text())
    shape = [1, len(pipeline["input"]["channels"]), *pipeline["inference"]["patch_size"]]
    with served(folder) as address, browser_page(cores) as (page, sampled):
        page.goto(f"{address}/index.html")
        page.set_default_timeout(MOST_MS)
        seconds = page.evaluate(PASSES, {"shape": shape, "count": passes, "threads": cores})
    return seconds, max(sampled)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """onnxruntime-web loads its parts from a server only."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

    def end_headers(self) -> None:
        # Without these a page gets no threads.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


def report(head: str, rows: list[tuple[str, int, list[tuple[float, float]]]], empty: float) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in machine("playwright").items())
    with sync_playwright() as driver, launched(driver) as browser:
        facts = f"Chromium {browser.version}, {facts}"
    page = min(seconds for seconds, _ in rows[0][2])
    lines = [
        f"{head}; {facts}",
        "",
        "| in the browser | seconds | times the page's | to load, MB | memory, MiB |",
        "|---|---|---|---|---|",
    ]
    for name, size, runs in rows:
        seconds, mib = min(s for s, _ in runs), max(m for _, m in runs) - empty
        lines.append(f"| {name} | {seconds:.1f} | {seconds / page:.1f} | {size / 1e6:.1f} | {mib:.0f} |")
    return "\n".join(lines) + "\n"


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", type=Path, required=True, help="model folder of nnUNetTrainerLightMUNet")
    parser.add_argument("--stock", type=Path, required=True, help="model folder of nnUNetTrainer, of the same plans")
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--onnxruntime-web", type=Path, required=True, metavar="DIST", help="npm's package, its dist")
    parser.add_argument("--float32", action="store_true", help="weights of the page, for networks not trained")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", "--out", type=Path, required=True)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
