"""A network of any of nnU-Net's trainers as ONNX, next to its pipeline as JSON and a script that runs both."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from ..extras import import_extra, require_libraries
from ..files import FolderTransaction, Record, check_replaceable, keep_apart, work_folder, write_text
from ..ops import portable_operators
from .check import EQUAL_LABELS, Comparison, compare, real_patches
from .errors import ExportError
from .model_folder import TrainedModel
from .pipeline import VERSION, describe_pipeline

OPSET = 18
MOST_DIFFERENCE = 0.01  # of two logits, compared with the largest; float32 differs by some 1e-5
LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
SCRIPT = Path(__file__).with_name("onnx_reference.py")
MADE_BY = "nnUNetv2_lightm export --onnx"


def write_onnx(
    model: TrainedModel, out: Path, *, check_images: Path | None = None, overwrite: bool = False
) -> Comparison:
    """Write a folder: FOLD.onnx for each fold, pipeline.json and predict.py; it appears whole or not at all.

    The network takes (batch, channels, *patch) and returns logits (batch, classes, *patch), float32; batch is free.

    Args:
        model: A model of any trainer.
        out: The folder.
        check_images: Images to compare with torch on; None: preprocessed cases of the model's data set.
        overwrite: Replace such a folder.

    Returns: What ONNX Runtime computes otherwise than torch, largest over the folds.

    Raises:
        ExportError: if the network cannot be exported, or ONNX Runtime computes otherwise than torch: another label in
            more than one voxel in 1000, or a logit off by more than 1 % of the largest.
        NotOursError: if ``out`` is there and not to be replaced.
        ImportError: if onnx, onnxscript or onnxruntime is not installed.
    """
    require_libraries(LIBRARIES, f"`{MADE_BY}`")
    out = Path(os.path.realpath(out))
    if out.suffix == ".onnx":
        raise ExportError(f"{out}: is to be a folder for networks, pipeline and script; give a name without .onnx")
    keep_apart([model.folder, *filter(None, [check_images])], [out, work_folder(out)])
    check_replaceable(out, overwrite)
    pipeline = describe_pipeline(model)
    patches = real_patches(model, check_images)
    with FolderTransaction([out], check=lambda: check_replaceable(out, overwrite), warn=print) as transaction:
        (folder,) = transaction.new
        files = dict(_networks(model, next(iter(patches.values())), folder))
        comparisons = [_compare(model, fold, patches, folder) for fold in model.weights]
        worst = max(comparisons, key=lambda comparison: comparison.largest_difference)
        network = {**_describe(model), "opset": OPSET, "sha256": files}
        content = {"format": "lightm-onnx", "version": VERSION, **pipeline, "network": network, "check": asdict(worst)}
        write_text(folder / "pipeline.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
        shutil.copyfile(SCRIPT, folder / "predict.py")
        record = Record(folder)
        record.add(folder)
        record.write(MADE_BY)
        transaction.commit()
    return worst


def export_network(network: nn.Module, patch: Tensor, path: Path) -> None:
    """Export for inputs of the patch's shape and any batch size, in operators of ONNX's own set alone.

    Raises:
        ExportError: if torch cannot translate it.
    """
    # A batch of two: torch takes a size of one for fixed.
    example = torch.cat([patch, patch])
    try:
        with torch.no_grad(), portable_operators(), _quiet():
            program = torch.onnx.export(
                network.eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["image"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(f"torch cannot export {type(network).__name__} to ONNX: {error}") from error
    import_extra("onnx", f"`{MADE_BY}`").save(inlined(program.model_proto), path)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its own code, in some hundred lines."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def inlined(proto):
    """Without functions: some runtimes know none.

    Raises:
        ExportError: if an operator is left that is not ONNX's own.
    """
    if proto.functions:
        from onnx.inliner import inline_local_functions

        proto = inline_local_functions(proto)
    others = {node.domain for node in _nodes(proto.graph)} - {"", "ai.onnx"}
    if others:
        raise ExportError(f"the network needs operators of {', '.join(sorted(others))}, which are not ONNX's own")
    standard = [opset for opset in proto.opset_import if opset.domain in ("", "ai.onnx")]
    del proto.opset_import[:]
    proto.opset_import.extend(standard)
    return proto


def _nodes(graph) -> Iterable:
    """Those of the bodies of Scan and the like too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def onnx_runtime(path: Path) -> Callable[[Tensor], Tensor]:
    """The network in ONNX Runtime on the CPU."""
    session = import_extra("onnxruntime", f"`{MADE_BY}`").InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda patch: torch.from_numpy(session.run(["logits"], {"image": patch.numpy()})[0])


def _networks(model: TrainedModel, patch: Tensor, folder: Path) -> Iterable[tuple[str, str]]:
    """Writes the network of each fold; its file's name and checksum."""
    for fold in model.weights:
        path = folder / f"{fold}.onnx"
        export_network(_with_weights(model, fold), patch, path)
        yield path.name, hashlib.sha256(path.read_bytes()).hexdigest()


def _compare(model: TrainedModel, fold: str, patches: dict[str, Tensor], folder: Path) -> Comparison:
    """One fold in ONNX Runtime and in torch.

    Raises:
        ExportError: if they differ by more than rounding.
    """
    comparison = compare(model, patches, _with_weights(model, fold), onnx_runtime(folder / f"{fold}.onnx"))
    if (
        comparison.equal_labels < EQUAL_LABELS
        or comparison.largest_difference > MOST_DIFFERENCE * comparison.largest_logit
    ):
        raise ExportError(f"{fold}: ONNX Runtime computes otherwise than torch, and nothing was written: {comparison}")
    return comparison


def _with_weights(model: TrainedModel, fold: str) -> nn.Module:
    network = copy.deepcopy(model.network)
    network.load_state_dict(model.weights[fold])
    return network.eval()


def _describe(model: TrainedModel) -> dict[str, object]:
    return {
        "type": type(model.network).__name__,
        "spatial_dims": len(model.settings.patch_size),
        "input_channels": model.input_channels,
        "num_classes": model.labels.num_segmentation_heads,
        "parameters": sum(parameter.numel() for parameter in model.network.parameters()),
    }
