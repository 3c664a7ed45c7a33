"""From image files to labels and volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .bundle import read_bundle
from .engine import LoadedModel
from .faults import ImageError
from .images import Case, read_case
from .output import write_labels


@dataclass(frozen=True)
class Segmentation:
    """The labels of one image.

    Attributes:
        case: The image.
        labels: (z, y, x), z = 1 where it is 2D.
        voxel_counts: Number of voxels of each label or region except the background, by name.
    """

    case: Case
    labels: np.ndarray
    voxel_counts: dict[str, int]

    @property
    def volumes_ml(self) -> dict[str, float]:
        """Volume of each label or region. Raises ImageError for a 2D image, which has none."""
        voxel_ml = self.case.voxel_ml
        if voxel_ml is None:
            raise ImageError(f"{self.case.files[0]}: is a 2D image, which has no volume; see voxel_counts")
        return {name: count * voxel_ml for name, count in self.voxel_counts.items()}

    def write(self, path: str | Path) -> None:
        """Write the labels, in the format that the ending says.

        Raises:
            ImageError: if they cannot be written in this format, or another program has the file open on Windows.
            OSError: if the folder cannot be written to.
        """
        write_labels(self.labels, self.case, Path(path))


def load(path: str | Path, *, mirroring: bool = True) -> LoadedModel:
    """Load a model.

    Args:
        path: A file that ``nnUNetv2_lightm export`` wrote.
        mirroring: False: one pass for each tile instead of up to eight; faster, and less exact.

    Raises:
        BundleError: if the file is not a model that this version runs.
    """
    return LoadedModel(read_bundle(path), mirroring)


def segment(
    model: LoadedModel,
    files: Sequence[str | Path],
    *,
    threads: int | None = None,
    progress: Callable[[int, int], bool | None] | None = None,
) -> Segmentation:
    """Segment one image.

    Args:
        model: A model from :func:`load`.
        files: A file for each channel in the model's order, or one file with all channels.
        threads: None: as many as there are cores, which is the most.
        progress: Called with passes of the network done and in all; True cancels.

    Raises:
        ImageError: if a file cannot be used.
        EngineError: if the engine cannot segment it.
        Cancelled: if ``progress`` asked for it.
    """
    pipeline = model.bundle.pipeline
    names = [channel["name"] for channel in model.channels]
    case = read_case([Path(file) for file in files], names, pipeline["input"]["reader"])
    if model.network.spatial_dims == 3 and case.geometry.dimensions == 2:
        raise ImageError(f"{case.files[0]}: is a 2D image; the model was trained on volumes")
    labels = model.segment(case.voxels, case.spacing_mm, threads, progress)
    return Segmentation(case, labels, _count(labels, pipeline["output"]["labels"]))


def _count(labels: np.ndarray, names: dict[str, int | list[int]]) -> dict[str, int]:
    counts = np.zeros(np.iinfo(labels.dtype).max + 1, np.int64)
    for plane in labels:  # bincount makes 8 bytes of each voxel
        found = np.bincount(plane.ravel())
        counts[: len(found)] += found
    made_of = {name: value if isinstance(value, list) else [value] for name, value in names.items()}
    return {
        name: int(sum(counts[value] for value in values if value < len(counts)))
        for name, values in made_of.items()
        if values != [0]
    }
