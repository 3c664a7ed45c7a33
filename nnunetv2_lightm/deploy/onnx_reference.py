"""nnU-Net's prediction around an ONNX file, in a few lines: needs onnxruntime, SimpleITK and scikit-image (which
brings imageio), no nnU-Net.

    python predict.py OUT.nii.gz IMAGE_0000.nii.gz [IMAGE_0001.nii.gz ...]

Reads pipeline.json and the fold_*.onnx next to it. A reference to read and to port, written for clarity, not for speed
or memory. For research use only.
"""

import itertools
import json
import sys
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import onnxruntime
import SimpleITK as sitk
from scipy.ndimage import binary_fill_holes, gaussian_filter, map_coordinates
from skimage.transform import resize


def read(files, reader):
    """(channels, z, y, x), spacing (z, y, x) in mm, the image that has the geometry, and how it was turned."""
    if reader == "Tiff3DIO":
        sys.exit("the model reads TIFF with the spacing in a JSON file next to each; this script does not")
    if reader == "NaturalImage2DIO":
        return read_pictures(files)
    images = [sitk.ReadImage(file) for file in files]
    turned = None
    if reader in ("SimpleITKIOWithReorient", "NibabelIOWithReorient"):
        turned = sitk.DICOMOrientImageFilter_GetOrientationFromDirectionCosines(images[0].GetDirection())
        images = [sitk.DICOMOrient(image, "RAS") for image in images]
    flat = images[0].GetDimension() == 2
    arrays = []
    for image in images:
        array = sitk.GetArrayFromImage(image).astype(np.float32)
        array = np.moveaxis(array, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else array[None]
        arrays.append(array[:, None] if flat else array)
    spacing = list(images[0].GetSpacing()[::-1])
    if flat:
        spacing = [max(spacing) * 999, *spacing]
    return np.concatenate(arrays), spacing, images[0], turned


def read_pictures(files):
    """The same of PNG, BMP and JPEG; SimpleITK gives other values and channels for some of them."""
    arrays = []
    for file in files:
        array = imageio.imread(file).astype(np.float32)
        if array.ndim == 3 and array.shape[-1] not in (3, 4):
            sys.exit(f"{file}: has {array.shape[-1]} channels; nnU-Net reads grey, or 3 or 4 colours")
        array = np.moveaxis(array, -1, 0) if array.ndim == 3 else array[None]
        arrays.append(array[:, None])
    return np.concatenate(arrays), [999.0, 1.0, 1.0], sitk.GetImageFromArray(arrays[0][0, 0]), None


def normalise(image, mask, channel):
    """One channel in place."""
    scheme, inside = channel["scheme"], mask if channel["use_mask"] else np.ones_like(mask)
    if scheme == "ZScoreNormalization":
        image[inside] = (image[inside] - image[inside].mean()) / max(image[inside].std(), 1e-8)
    elif scheme == "CTNormalization":
        s = channel["statistics"]
        image[:] = (image.clip(s["percentile_00_5"], s["percentile_99_5"]) - s["mean"]) / max(s["std"], 1e-8)
    elif scheme == "RescaleTo01Normalization":
        image -= image.min()
        image /= max(image.max(), 1e-8)
    elif scheme == "RGBTo01Normalization":
        image /= 255


def resample(volume, shape, spacing, new_spacing, how):
    """One channel; thick slices are resampled plane by plane first."""
    if volume.shape == tuple(shape):
        return volume
    options = {"order": how["order"], "mode": "edge", "anti_aliasing": False}
    axis, force, threshold = None, how["force_separate_z"], how["anisotropy_threshold"]
    for decisive in (spacing, new_spacing):
        if axis is None and (force or (force is None and max(decisive) / min(decisive) > threshold)):
            coarse = [a for a in range(3) if decisive[a] == max(decisive)]
            axis = coarse[0] if len(coarse) == 1 else -1  # -1: decided, and nothing to separate
    if axis is None or axis < 0:
        return resize(volume.astype(float), shape, **options)
    plane = [size for a, size in enumerate(shape) if a != axis]
    planes = [resize(p.astype(float), plane, **options) for p in np.moveaxis(volume, axis, 0)]
    stack = np.stack(planes, axis)
    if stack.shape == tuple(shape):
        return stack
    grid = [a / b * (np.arange(b) + 0.5) - 0.5 for a, b in zip(stack.shape, shape)]
    return map_coordinates(stack, np.meshgrid(*grid, indexing="ij"), order=how["order_z"], mode="nearest")


def window_weights(patch, sigma):
    """What nnU-Net weighs the voxels of a tile by."""
    weights = np.zeros(patch)
    weights[tuple(size // 2 for size in patch)] = 1
    weights = gaussian_filter(weights, [size * sigma for size in patch], mode="constant")
    weights = (weights / weights.max() * 10).astype(np.float16)
    weights[weights == 0] = weights[weights > 0].min()
    return weights.astype(np.float32)


def starts(size, patch, step):
    """First voxels of the tiles along one axis."""
    count = int(np.ceil((size - patch) / (patch * step))) + 1
    return [int(np.round((size - patch) / max(count - 1, 1) * i)) for i in range(count)]


def predict(data, sessions, pipeline):
    """Logits (classes, *spatial) of preprocessed data (channels, *spatial): tiles, mirrored, of all folds."""
    inference = pipeline["inference"]
    patch, dims = inference["patch_size"], len(inference["patch_size"])
    size = data.shape[1:]
    before = [max(0, p - s) // 2 for p, s in zip(patch, size)]
    after = [max(0, p - s) - b for p, s, b in zip(patch, size, before)]
    data = np.pad(data, [(0, 0), *zip(before, after)])
    subsets = (itertools.combinations(inference["mirroring_axes"], n) for n in range(dims + 1))
    axes = [[2 + axis for axis in subset] for subset in itertools.chain(*subsets)]
    weights = window_weights(patch, inference["gaussian_sigma"])
    total, weight = 0, np.zeros(data.shape[1:], np.float32)
    for corner in itertools.product(*(starts(s, p, inference["step"]) for s, p in zip(data.shape[1:], patch))):
        window = tuple(slice(c, c + p) for c, p in zip(corner, patch))
        tile = data[(slice(None), *window)][None].astype(np.float32)
        logits = 0
        for session, flip in itertools.product(sessions, axes):
            (one,) = session.run(["logits"], {"image": np.ascontiguousarray(np.flip(tile, flip))})
            logits = logits + np.flip(one, flip)[0] / (len(sessions) * len(axes))
        if weight.max() == 0:
            total = np.zeros((len(logits), *data.shape[1:]), np.float32)
        total[(slice(None), *window)] += logits * weights
        weight[window] += weights
    total /= weight
    return total[(slice(None), *(slice(b, b + s) for b, s in zip(before, size)))]


def main(out, *files):
    here = Path(__file__).parent
    pipeline = json.loads((here / "pipeline.json").read_text())
    sessions = [onnxruntime.InferenceSession(path) for path in sorted(here.glob("*.onnx"))]
    steps, channels = pipeline["preprocessing"], pipeline["input"]["channels"]
    image, spacing, geometry, turned = read(files, pipeline["input"]["reader"])
    if len(image) != len(channels):
        sys.exit(f"{len(image)} channels given, {len(channels)} needed: {', '.join(c['name'] for c in channels)}")

    forward = steps["transpose_forward"]
    image = image.transpose(0, *(axis + 1 for axis in forward))
    spacing = [spacing[axis] for axis in forward]
    mask = binary_fill_holes((image != 0).any(0))
    bounds = [np.flatnonzero(mask.any(tuple(b for b in range(3) if b != a))) for a in range(3)]
    box = tuple(slice(b[0], b[-1] + 1) if len(b) else slice(None) for b in bounds)
    data = image[(slice(None), *box)].copy()
    for channel, description in zip(data, channels):
        normalise(channel, mask[box], description)

    target = steps["spacing_mm"]
    target = [spacing[0], *target] if len(target) == 2 else target
    cropped = data.shape[1:]
    shape = [round(old / new * size) for old, new, size in zip(spacing, target, cropped)]
    data = np.stack([resample(c, shape, spacing, target, steps["resampling_data"]) for c in data])

    if len(pipeline["inference"]["patch_size"]) == 2:
        logits = np.stack([predict(data[:, z], sessions, pipeline) for z in range(data.shape[1])], 1)
    else:
        logits = predict(data, sessions, pipeline)
    logits = np.stack([resample(c, cropped, target, spacing, steps["resampling_logits"]) for c in logits])

    regions = pipeline["output"]["regions_class_order"]
    labels = np.zeros(image.shape[1:], np.uint16)
    if regions:
        for logit, label in zip(logits, regions):
            labels[box][logit > 0] = label
    else:
        labels[box] = logits.argmax(0)
    labels = labels.transpose(np.argsort(forward))
    highest = max(np.max(value) for value in pipeline["output"]["labels"].values())
    labels = labels.astype(np.uint8 if highest < 255 else np.uint16)
    result = sitk.GetImageFromArray(labels[0] if geometry.GetDimension() == 2 else labels)
    result.CopyInformation(geometry)
    sitk.WriteImage(sitk.DICOMOrient(result, turned) if turned else result, out)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
