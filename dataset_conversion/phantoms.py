"""Phantoms in the layouts of LiTS and of the chest X-ray sets: made from a seed, small, and learnable on a CPU."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from skimage.filters import gaussian

from ..files import Record
from ..option_types import whole_number
from ._nifti import write_volume
from ._png import write_gray_png

MADE_BY = "nnunetv2_lightm phantoms"
# Hounsfield units of portal-venous CT, roughly: the liver is brighter than muscle, tumours are darker than the liver.
_HU = {
    "air": -1000,
    "fat": -100,
    "muscle": 50,
    "lung": -800,
    "bone": 450,
    "aorta": 190,
    "kidney": 170,
    "spleen": 90,
    "stomach": 15,
    "liver": 120,
    "liver vessel": 175,
    "tumor": 35,
}


def write_lits_phantoms(
    folder: str | os.PathLike[str],
    *,
    num_cases: int,
    num_test_cases: int = 0,
    seed: int,
    shape: tuple[int, int, int] = (40, 96, 96),
    noise_hu: float = 15.0,
) -> None:
    """Write CT-like volumes of an abdomen in the layout of the LiTS challenge.

    Each is an int16 NIfTI in HU with a body, a liver with one to three tumours, and a spine, ribs, lungs, spleen,
    kidneys, stomach and aorta. The spacing differs from case to case and is wider along z. A case depends only on
    `seed` and its own number, so adding cases leaves the first ones as they are. Files that an earlier call made are
    replaced, others are not.

    Args:
        folder: Receives `volume-N.nii.gz` with `segmentation-N.nii.gz`, and `test-volume-N.nii.gz` without.
        num_cases: Cases with a label, numbered from 0.
        num_test_cases: Cases without a label, numbered from 0.
        seed: Same seed, same phantoms.
        shape: Voxels, (z, y, x).
        noise_hu: Standard deviation of the white noise.
    Raises:
        ValueError: if a number or the shape is too small.
        NotOursError: if a file of that name exists that was not made here, such as a real volume.
    """
    if num_cases < 0 or num_test_cases < 0 or num_cases + num_test_cases == 0:
        raise ValueError(f"num_cases={num_cases}, num_test_cases={num_test_cases}: need at least one phantom")
    if len(shape) != 3 or min(shape) < 16:
        raise ValueError(f"shape={tuple(shape)}: need (z, y, x) with at least 16 voxels along each")
    names = [f"{role}-{number}.nii.gz" for number in range(num_cases) for role in ("volume", "segmentation")]
    names += [f"test-volume-{number}.nii.gz" for number in range(num_test_cases)]
    record = _begin(Path(folder), names)

    def write(image: sitk.Image, name: str) -> None:
        with record.writing(record.folder / name, MADE_BY) as partial:
            write_volume(image, partial)

    for number in range(num_cases):
        volume, label = _make_abdomen(np.random.default_rng([seed, 0, number]), shape, noise_hu)
        write(volume, f"volume-{number}.nii.gz")
        write(label, f"segmentation-{number}.nii.gz")
    for number in range(num_test_cases):
        volume, _ = _make_abdomen(np.random.default_rng([seed, 1, number]), shape, noise_hu)
        write(volume, f"test-volume-{number}.nii.gz")


def write_chest_xray_phantoms(
    folder: str | os.PathLike[str],
    *,
    num_cases: int,
    num_test_cases: int = 0,
    seed: int,
    shape: tuple[int, int] = (128, 128),
) -> None:
    """Write images like chest X-rays in the layout of the Kaggle set: `CXR_png/` and `masks/`, 8-bit gray.

    Every other case is named as one of Montgomery (`MCUCXR_...`), the rest as Shenzhen (`CHNCXR_...`, whose masks
    end in `_mask`).

    Args:
        folder: Receives the two folders.
        num_cases: Images with a mask.
        num_test_cases: Images without one.
        seed: Same seed, same phantoms.
        shape: Pixels, (height, width).
    Raises:
        ValueError: if a number or the shape is too small.
        NotOursError: if a file of that name exists that was not made here, such as a real volume.
    """
    if num_cases < 0 or num_test_cases < 0 or num_cases + num_test_cases == 0:
        raise ValueError(f"num_cases={num_cases}, num_test_cases={num_test_cases}: need at least one phantom")
    if len(shape) != 2 or min(shape) < 16:
        raise ValueError(f"shape={tuple(shape)}: need (height, width) with at least 16 pixels along each")
    stems = [
        f"{'MCUCXR' if number % 2 == 0 else 'CHNCXR'}_{number + 1:04d}_{number % 3 % 2}"
        for number in range(num_cases + num_test_cases)
    ]
    images = [f"CXR_png/{stem}.png" for stem in stems]
    masks = [f"masks/{stem}{'' if stem.startswith('MCU') else '_mask'}.png" for stem in stems[:num_cases]]
    record = _begin(Path(folder), [*images, *masks])

    def write(pixels: np.ndarray, name: str) -> None:
        with record.writing(record.folder / name, MADE_BY) as partial:
            write_gray_png(pixels, partial)

    for number, name in enumerate(images):
        image, lungs = _make_chest(np.random.default_rng([seed, 2, number]), shape)
        write(image, name)
        if number < num_cases:
            write(np.where(lungs, 255, 0).astype(np.uint8), masks[number])


def _begin(folder: Path, names: list[str]) -> Record:
    """Make the folder, and those that the names lie in; refuse files of these names that were not made here."""
    record = Record.read(folder) or Record(folder)
    for name in names:
        record.check_only_ours(folder / name)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    return record


def _make_abdomen(
    rng: np.random.Generator, shape: tuple[int, int, int], noise_hu: float
) -> tuple[sitk.Image, sitk.Image]:
    """One abdomen and its label. Positions and sizes are fractions of the half field of view, x to the patient's
    left, y to the back, z to the head; the liver therefore lies at negative x."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij", sparse=True)

    def blob(center, radii, roughness=0.0):
        """A filled ellipsoid, center and radii in (z, y, x); roughness bends its surface by low-frequency waves."""
        level = sum(((axis - c) / r) ** 2 for axis, c, r in zip((z, y, x), center, radii))
        for axis in (z, y, x):
            level = level + roughness * np.sin(rng.uniform(3, 7) * axis + rng.uniform(0, 2 * np.pi))
        return level < 1

    hu = np.full(shape, _HU["air"], np.float32)
    girth = rng.uniform(0.92, 1.04)
    body = np.broadcast_to((x / (0.92 * girth)) ** 2 + (y / (0.74 * girth)) ** 2 < 1, shape)
    inside = np.broadcast_to((x / (0.84 * girth)) ** 2 + (y / (0.65 * girth)) ** 2 < 1, shape)
    hu[body] = _HU["fat"]
    hu[inside] = _HU["muscle"]
    cage = inside & ~np.broadcast_to((x / (0.78 * girth)) ** 2 + (y / (0.59 * girth)) ** 2 < 1, shape)
    hu[cage & (np.sin(14 * z + 5 * y + rng.uniform(0, 6)) > 0.55)] = _HU["bone"]

    def shifted(*center):
        return tuple(c + rng.uniform(-0.05, 0.05) for c in center)

    def scaled(*radii):
        return tuple(r * rng.uniform(0.88, 1.12) for r in radii)

    for side in (-1, 1):
        hu[blob(shifted(1.0, 0.0, 0.42 * side), scaled(0.42, 0.42, 0.30)) & inside] = _HU["lung"]
        hu[blob(shifted(-0.45, 0.30, 0.38 * side), scaled(0.32, 0.13, 0.13), 0.1) & inside] = _HU["kidney"]
    hu[blob(shifted(0.25, 0.22, 0.56), scaled(0.30, 0.17, 0.14), 0.1) & inside] = _HU["spleen"]
    hu[blob(shifted(0.10, -0.22, 0.36), scaled(0.32, 0.20, 0.20), 0.15) & inside] = _HU["stomach"]
    hu[np.broadcast_to(((y - 0.47) / 0.15) ** 2 + (x / 0.15) ** 2 < 1, shape)] = _HU["bone"]
    hu[np.broadcast_to(((y - 0.25) / 0.07) ** 2 + ((x - 0.05) / 0.07) ** 2 < 1, shape)] = _HU["aorta"]

    center = np.array(shifted(0.10, -0.08, -0.36))
    radii = np.array(scaled(0.52, 0.36, 0.34))
    liver = blob(center, radii, 0.12) | blob(center + (0.12, -0.12, 0.26), radii * (0.6, 0.5, 0.8), 0.1)
    liver &= inside & ~cage
    hu[liver] = _HU["liver"] + rng.uniform(-12, 12)
    slope_y, slope_x = rng.uniform(-0.8, 0.8, size=2)
    vessel = (y - center[1] - slope_y * (z - center[0])) ** 2 + (x - center[2] - slope_x * (z - center[0])) ** 2
    hu[liver & (vessel < 0.04**2)] = _HU["liver vessel"]

    label = liver.astype(np.uint8)
    for _ in range(rng.integers(1, 4)):
        direction = rng.normal(size=3)
        spot = center + radii * direction / np.linalg.norm(direction) * rng.uniform(0.1, 0.6)
        tumor = blob(spot, rng.uniform(0.09, 0.16) * np.array((1.6, 1.0, 1.0)), 0.08) & liver
        hu[tumor] = _HU["tumor"] + rng.uniform(-10, 10)
        label[tumor] = 2

    hu = gaussian(hu, sigma=0.6, preserve_range=True) + rng.normal(0, noise_hu, shape)
    spacing = (*[float(np.round(rng.uniform(2.7, 3.3), 4))] * 2, float(np.round(rng.uniform(4.5, 6.0), 2)))
    origin = tuple(float(np.round(v, 3)) for v in rng.uniform(-200, 0, size=3))
    images = []
    for array in (np.clip(np.rint(hu), -1024, 3071).astype(np.int16), label):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(spacing)
        image.SetOrigin(origin)
        images.append(image)
    return images[0], images[1]


def _make_chest(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """One chest, uint8, and its lungs, bool; positions are fractions of the half field of view."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij", sparse=True)
    lungs = np.zeros(shape, bool)
    for side in (-1, 1):
        center_y, center_x = rng.uniform(-0.12, 0.04), side * rng.uniform(0.38, 0.46)
        radius_y, radius_x = rng.uniform(0.55, 0.68), rng.uniform(0.25, 0.32)
        lungs |= ((y - center_y) / radius_y) ** 2 + ((x - center_x) / radius_x) ** 2 < 1
    heart = ((y - 0.30) / 0.30) ** 2 + ((x - rng.uniform(0.08, 0.16)) / rng.uniform(0.22, 0.30)) ** 2 < 1
    lungs &= ~heart
    gray = 190 - 40 * x**2 - 25 * y
    gray = np.where(x**2 / 0.95**2 + y**2 / 1.3**2 < 1, gray, 15)
    gray = np.where(lungs, rng.uniform(60, 90), gray)
    gray = np.where(heart, 205, gray)
    gray = gray + 14 * (np.sin(18 * (y + 0.3 * x**2) + rng.uniform(0, 6)) > 0.4)
    gray = gaussian(gray, sigma=1.0, preserve_range=True) + rng.normal(0, 6, shape)
    return np.clip(np.rint(gray), 0, 255).astype(np.uint8), lungs


def main(argv: list[str] | None = None) -> int:
    """Command line: write phantoms. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m nnunetv2_lightm.dataset_conversion.phantoms",
        description="Write phantoms: CT-like volumes in the layout of LiTS, or images in that of the chest X-ray sets.",
    )
    parser.add_argument("folder", type=Path, help="where to write; made if it is not there")
    parser.add_argument("--kind", choices=("lits", "chest-xray"), default="lits", help="default: %(default)s")
    parser.add_argument("--num-cases", type=whole_number(at_least=0), required=True, help="phantoms with a label")
    parser.add_argument(
        "--num-test-cases", type=whole_number(at_least=0), default=0, help="phantoms without a label (default: 0)"
    )
    parser.add_argument(
        "--seed", type=whole_number(at_least=0), default=1, help="same seed, same phantoms (default: %(default)s)"
    )
    parser.add_argument(
        "--shape",
        type=whole_number(at_least=16),
        nargs="+",
        metavar="N",
        help="voxels: Z Y X (default 40 96 96), or HEIGHT WIDTH (128 128)",
    )
    args = parser.parse_args(argv)
    write = write_lits_phantoms if args.kind == "lits" else write_chest_xray_phantoms
    shape = {"shape": tuple(args.shape)} if args.shape else {}
    try:
        write(args.folder, num_cases=args.num_cases, num_test_cases=args.num_test_cases, seed=args.seed, **shape)
    except (ValueError, OSError) as error:
        print(f"phantoms: {error}", file=sys.stderr)
        return 1
    print(f"{args.num_cases} phantoms with and {args.num_test_cases} without a label in {args.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
