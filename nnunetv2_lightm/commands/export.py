"""``nnUNetv2_lightm export``: a trained model becomes one file, a web page, ONNX, or a zip for nnU-Net."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from ..escaping import escape_terminal, shell_line

PROGRAM = "nnUNetv2_lightm export"
FOLD_HELP = 'folds to average, numbers or "all"; default: all numbered ones that have the checkpoint'


def main(argv: list[str]) -> int:
    """Export, and print what was written. Returns 1 if the model cannot be exported, or OUT already exists."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.onnx and arguments.float32:
        parser.error("argument --onnx: not allowed with argument --float32: ONNX is float32 always")
    # Loads torch and nnunetv2, which --help does not need.
    from ..deploy.errors import ExportError
    from ..files import NotOursError

    try:
        write = _onnx if arguments.onnx else _web if arguments.web else _zip if arguments.zip else _bundle
        print(escape_terminal(write(arguments)))
    except (ExportError, NotOursError) as error:
        print(f"{PROGRAM}: {escape_terminal(error)}", file=sys.stderr)
        return 1
    return 0


def _bundle(arguments: argparse.Namespace) -> str:
    from ..deploy.bundle import is_bundle, write_bundle
    from ..deploy.model_folder import read_model_folder

    _check_out(arguments, is_bundle)
    model = read_model_folder(arguments.model, arguments.folds, arguments.checkpoint)
    comparison = write_bundle(model, arguments.out, half=not arguments.float32, check_images=arguments.check_images)
    return (
        f"{arguments.out}: {model}, {arguments.out.stat().st_size / 1e6:.1f} MB.\n"
        f"Compared with the trained weights: {comparison}.\n"
        "Segment, without PyTorch and nnU-Net (in a clone of this repository: pip install ./runtime):\n"
        f"  lightm segment {arguments.out} IMAGE -o SEGMENTATION"
    )


def _onnx(arguments: argparse.Namespace) -> str:
    from ..deploy.model_folder import read_model_folder
    from ..deploy.onnx_file import write_onnx

    model = read_model_folder(arguments.model, arguments.folds, arguments.checkpoint)
    comparison = write_onnx(model, arguments.out, check_images=arguments.check_images, overwrite=arguments.overwrite)
    segmentation = f"SEGMENTATION{model.dataset_json['file_ending']}"
    return (
        f"{arguments.out}: {model}; pipeline.json says what belongs around the network.\n"
        f"Compared with PyTorch: {comparison}.\n"
        "Segment by the reference script (pip install onnxruntime SimpleITK scikit-image):\n"
        f"  {shell_line('python', arguments.out / 'predict.py', segmentation, 'IMAGE')}"
    )


def _zip(arguments: argparse.Namespace) -> str:
    from ..deploy.model_folder import read_model_folder
    from ..deploy.nnunet_zip import is_model_zip, write_zip

    _check_out(arguments, is_model_zip)
    model = read_model_folder(arguments.model, arguments.folds, arguments.checkpoint)
    comparison = write_zip(model, arguments.out, half=not arguments.float32, check_images=arguments.check_images)
    names = ("-d", model.plans.dataset_name, "-c", model.configuration, "-p", model.plans.plans_name)
    folds = [fold.removeprefix("fold_") for fold in model.weights]
    predict = shell_line("nnUNetv2_predict", *names, "-tr", model.trainer, "-f", *folds)
    return (
        f"{arguments.out}: {model}, {arguments.out.stat().st_size / 1e6:.1f} MB.\n"
        f"Compared with the trained weights: {comparison}.\n"
        "Install into nnUNet_results, and predict, wherever this package is installed:\n"
        f"  {shell_line('nnUNetv2_install_pretrained_model_from_zip', arguments.out)}\n"
        f"  {predict} -i IMAGES -o SEGMENTATIONS"
    )


def _web(arguments: argparse.Namespace) -> str:
    from ..deploy.bundle import bundle_content, pipeline_of, read_bundle
    from ..deploy.model_folder import read_model_folder
    from ..deploy.web.engine import web_engines
    from ..deploy.web.page import is_page, write_page

    _check_out(arguments, is_page)
    bundled = arguments.model.is_file()
    # The model is read first, which takes seconds, and checked last: the engine may be missing.
    model = (
        read_bundle(arguments.model)
        if bundled
        else read_model_folder(arguments.model, arguments.folds, arguments.checkpoint)
    )
    engines = web_engines(lambda text: print(escape_terminal(text), file=sys.stderr, flush=True))
    if bundled:
        content, summary = model, pipeline_of(model)["name"]
    else:
        content, comparison = bundle_content(model, half=not arguments.float32, check_images=arguments.check_images)
        summary = f"{model}. Compared with the trained weights: {comparison}"
    write_page(content, engines, arguments.out)
    return (
        f"{arguments.out}, {arguments.out.stat().st_size / 1e6:.1f} MB: {summary}.\n"
        "Open it in a browser, from disk; it needs no network:\n"
        f"  {arguments.out.resolve().as_uri()}"
    )


def _check_out(arguments: argparse.Namespace, ours: Callable[[bytes], bool]) -> None:
    """Refuse to replace OUT unless --overwrite is given and ``ours`` recognises its content; never replace an input."""
    from ..files import check_free, check_output

    model = arguments.model
    inputs = [model] if model.is_file() else [path for path in model.rglob("*") if path.is_file()]
    check_free(arguments.out, inputs=inputs, overwrite=arguments.overwrite)
    check_output(arguments.out, inputs=inputs, ours=ours)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Write a trained model with nnU-Net's whole pipeline into one file, for `lightm segment` of "
        "lightm-runtime, which needs neither PyTorch nor nnU-Net, as a web page, as ONNX, or for nnU-Net elsewhere.",
        epilog="Nothing in a checkpoint is executed. For research use only.",
    )
    parser.add_argument(
        "model",
        type=Path,
        metavar="MODEL_FOLDER",
        help="TRAINER__PLANS__CONFIGURATION below nnUNet_results; with --web also a file that was exported before",
    )
    parser.add_argument(
        "out",
        type=Path,
        metavar="OUT",
        help="file to write, e.g. liver.lightm, liver.html, liver.zip; with --onnx a folder",
    )
    parser.add_argument("-f", dest="folds", nargs="+", metavar="FOLD", help=FOLD_HELP)
    parser.add_argument(
        "-chk", dest="checkpoint", default="checkpoint_final.pth", metavar="NAME", help="default: %(default)s"
    )
    parser.add_argument("--float32", action="store_true", help="store the weights in float32 instead of float16")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--web", action="store_true", help="one HTML page that segments in the browser, offline; needs '.[web]'"
    )
    form.add_argument(
        "--onnx", action="store_true", help="ONNX, pipeline and script instead; any trainer; needs '.[onnx]'"
    )
    form.add_argument(
        "--zip",
        action="store_true",
        help="a small zip for nnUNetv2_install_pretrained_model_from_zip instead; any trainer",
    )
    parser.add_argument(
        "--check-images",
        type=Path,
        metavar="FOLDER",
        help="images, as nnUNetv2_predict takes them, to check the export on; default: preprocessed training cases",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing export")
    return parser
