"""Modules of the page, run by Node.js: files become what nnU-Net's readers make of them."""

from __future__ import annotations

import itertools
import json
import shutil
import struct
import subprocess

import imageio.v3 as imageio
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_lightm.deploy.web.page import PAGE

from ...nifti_files import write_nifti
from ...pictures import GREY, GREY_ALPHA, chunk, png, write_every_png

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed (Debian, Ubuntu: apt install nodejs)")
HEADER = """
import fs from "node:fs";
const bytes = (path) => new Uint8Array(fs.readFileSync(path));
const given = JSON.parse(fs.readFileSync(0, "utf-8"));
const file = (path) => ({ name: path.split("/").at(-1), arrayBuffer: async () => bytes(path).buffer });
const tried = async (f) => {
  try {
    return await f();
  } catch (error) {
    return { refused: `${error}` };
  }
};
"""


def run(modules: dict[str, str], script: str, given: object) -> list:
    """What a script of the page's modules prints as JSON. modules: names that it takes, by their module."""
    imports = "".join(f'import {{ {names} }} from "{(PAGE / name).as_uri()}.mjs";\n' for name, names in modules.items())
    command = [NODE, "--input-type=module", "--eval", imports + HEADER + script]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


READ_PNG = """
const found = [];
for (const path of given)
  found.push(await tried(async () => ({ ...(await readPng(bytes(path), path)) })));
console.log(JSON.stringify(found.map((f) => (f.values ? { ...f, values: [...f.values] } : f))));
"""


def test_png_of_every_kind_is_read_as_by_nnunet(tmp_path):
    """NaturalImage2DIO reads by imageio: one bit is 0 or 1, colours of 16 bits lose 8, palettes have three channels."""
    paths = write_every_png(tmp_path)
    found = run({"png": "readPng"}, READ_PNG, list(map(str, paths)))
    for path, picture in zip(paths, found, strict=True):
        expected = np.asarray(imageio.imread(path, plugin="pillow"), np.float32)
        if expected.ndim == 3 and expected.shape[-1] == 2:
            assert "is grey with transparency, which nnU-Net does not read" in picture["refused"]
            continue
        expected = expected[None] if expected.ndim == 2 else np.moveaxis(expected, -1, 0)
        assert picture["channels"] == len(expected), path.name
        values = np.reshape(picture["values"], (-1, picture["height"], picture["width"]))
        np.testing.assert_array_equal(values, expected, err_msg=path.name)


def test_animations_and_grey_with_transparency_are_refused(tmp_path):
    forms = {
        "two.png": png(GREY, 8, chunk(b"acTL", struct.pack(">2I", 2, 0))),
        "one.png": png(GREY, 8, chunk(b"acTL", struct.pack(">2I", 1, 0))),
        "alpha.png": png(GREY_ALPHA, 8),
    }
    for name, content in forms.items():
        (tmp_path / name).write_bytes(content)
    two, one, alpha = run({"png": "readPng"}, READ_PNG, [str(tmp_path / name) for name in forms])
    assert "two.png: is an animation" in two["refused"] and "alpha.png: is grey with" in alpha["refused"]
    assert one["channels"] == 1


def rotation(*angles: float) -> np.ndarray:
    """About x, then y, then z, in degrees."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(angles)):
        a, b = (other for other in range(3) if other != axis)
        turn = np.eye(3)
        turn[[a, b], [a, b]], turn[a, b], turn[b, a] = np.cos(angle), -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def forms(qform: np.ndarray, qform_code: int, sform: np.ndarray, sform_code: int, pixdim=(1, 2, 3)) -> dict:
    """Fields of a header that places a volume by two 3x3 matrices, of directions."""
    holder = nib.Nifti1Header()
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = qform * np.abs(pixdim), (-30, 40, 50)
    holder.set_qform(affine, 1)
    rows = np.column_stack([sform * np.abs(pixdim), (-31, 41, 51)])
    factor = holder["pixdim"][0]
    return {
        **{key: holder[key] for key in ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")},
        **{f"srow_{axis}": row for axis, row in zip("xyz", rows)},
        **{
            "qform_code": qform_code,
            "sform_code": sform_code,
            "pixdim": [factor, *pixdim, 1, 1, 1, 1],
            "xyzt_units": 2,
        },
    }


PLACES = """
const found = [];
for (const path of given) found.push(await tried(() => {
  const image = { ...readNifti(bytes(path), path) }, planes = planesOf(image);
  const axes = ({ right, down }) => [right, down].map(({ axis, reversed }) => [axis, reversed]);
  const shown = planes.map((plane) => ({ edges: plane.edges, axes: axes(plane) }));
  return { ...placeOf(image.header), doubt: orientationOf(image.header).doubt, shown };
}));
console.log(JSON.stringify(found));
"""
MODULES = {"nifti": "readNifti", "orientation": "orientationOf, placeOf", "planes": "planesOf"}
VOLUME = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
ALONG = np.diag([-1.0, 1.0, 1.0])
SHEARED = ALONG.copy()
SHEARED[0, 1] = 0.4
FORMS = {
    "along": ALONG,
    "mirrored": np.eye(3),
    "turned": np.array([[0, 1.0, 0], [0, 0, -1.0], [1.0, 0, 0]]),
    "tilted": rotation(10, -20, 15) @ ALONG,
    "sheared": SHEARED,
}


def axes_of(code: tuple[str, ...]) -> tuple:
    """Of nibabel's letters: for R, A and S the axis that runs so, and whether against it."""
    return tuple(
        next((axis, letter == other) for axis, letter in enumerate(code) if letter in (positive, other))
        for positive, other in ("RL", "AP", "SI")
    )


def test_a_volume_lies_as_simpleitk_has_it_and_has_letters_only_where_nibabel_agrees(tmp_path):
    paths, expected = [], []
    names = itertools.product(FORMS, FORMS, (0, 1, 2), (0, 1, 4))
    for qform, sform, qform_code, sform_code in names:
        if qform == "sheared":  # a quaternion is none
            continue
        path = tmp_path / f"{qform}{qform_code}_{sform}{sform_code}.nii"
        write_nifti(path, VOLUME, **forms(FORMS[qform], qform_code, FORMS[sform], sform_code))
        paths.append(str(path))
        try:
            image = sitk.ReadImage(str(path))
        except RuntimeError:
            image = None
        expected.append(image)
    found = run(MODULES, PLACES, paths)
    letters = 0
    for path, image, page in zip(paths, expected, found, strict=True):
        if image is None:
            assert "not at right angles" in page["refused"], path
            continue
        columns = np.diag([-1.0, -1.0, 1.0]) @ np.reshape(image.GetDirection(), (3, 3))
        np.testing.assert_allclose(np.transpose(page["columns"]), columns, atol=1e-5, err_msg=path)
        np.testing.assert_allclose(page["origin"], np.multiply(image.GetOrigin(), (-1, -1, 1)), atol=1e-4, err_msg=path)
        codes = codes_of(path)
        assert (page["doubt"] is None) == (len(codes) == 1), path
        axial = page["shown"][0]
        assert axial["edges"] == (["", ""] if page["doubt"] else ["R", "A"]), path
        as_read = nib.aff2axcodes(columns_as_affine(columns))
        assert page["doubt"] or codes == {as_read}, path
        right, front, _ = axes_of(as_read)
        # The patient's right is on the left: the screen runs against R, and downwards against A.
        assert axial["axes"] == [[right[0], not right[1]], [front[0], not front[1]]], path
        letters += page["doubt"] is None
    assert 40 < letters < len(paths)


def columns_as_affine(columns: np.ndarray) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = columns
    return affine


def codes_of(path: str) -> set[tuple[str, ...]]:
    """Of the forms that a header has, by nibabel."""
    header = nib.load(path).header
    affines = (header.get_qform(coded=True), header.get_sform(coded=True))
    return {nib.aff2axcodes(affine) for affine, code in affines if code > 0}


READ = """
const channels = (n) => Array.from({ length: n }, (_, i) => ({ name: `channel ${i}` }));
const found = [];
for (const { files, reader, count } of given) found.push(await tried(async () => {
  const pipeline = { input: { channels: channels(count), reader }, network: { spatial_dims: 3 } };
  const { voxels, input, doubt } = await readImage(files.map(file), pipeline);
  return { voxels: [...voxels], input: { ...input, voxels: [...input.voxels] }, doubt };
}));
console.log(JSON.stringify(found));
"""


def test_channels_are_compared_by_where_they_lie(tmp_path):
    """In whichever form: most programs write both, some one of them; and a quaternion has two signs."""
    turned = rotation(0, 0, 180) @ ALONG
    base = forms(turned, 1, turned, 0)
    same = {
        "the same by the sform": forms(ALONG, 0, turned, 2) | {"srow_x": [1, 0, 0, -30], "srow_y": [0, -2, 0, 40]},
        "the other sign": {**base, **{key: -base[key] for key in ("quatern_b", "quatern_c", "quatern_d")}},
        "a form that does not count": {**base, "srow_x": [9, 9, 9, 9]},
        "in micrometres": {
            **{**base, "xyzt_units": 3, "pixdim": [base["pixdim"][0], 1000, 2000, 3000, 1, 1, 1, 1]},
            **{key: 1000 * base[key] for key in ("qoffset_x", "qoffset_y", "qoffset_z")},
        },
    }
    same["the same by the sform"] |= {"srow_z": [0, 0, 3, 50]}
    other = {
        "moved": {**base, "qoffset_x": base["qoffset_x"] + 0.5},
        "turned round by pixdim[0]": {**base, "pixdim": [-base["pixdim"][0], 1, 2, 3, 1, 1, 1, 1]},
        "mirrored": forms(ALONG, 1, ALONG, 0),
        "by an sform that is another": forms(ALONG, 0, turned, 2),
    }
    first = write_nifti(tmp_path / "first.nii", VOLUME, **base)
    given = []
    for i, (name, fields) in enumerate((same | other).items()):
        path = write_nifti(tmp_path / f"{i}.nii", VOLUME, **fields)
        given.append({"files": [str(first), str(path)], "reader": "SimpleITKIO", "count": 2})
        differ = False
        try:
            a, b = (sitk.ReadImage(str(file)) for file in (first, path))
            for what in ("Origin", "Direction"):
                differ |= not np.allclose(getattr(a, f"Get{what}")(), getattr(b, f"Get{what}")(), atol=1e-3)
        except RuntimeError as error:  # pragma: no cover
            pytest.fail(f"{name}: {error}")
        assert differ == (name in other), f"{name}: the test does not say what it means"
    for name, page in zip((same | other), run({"image": "readImage"}, READ, given), strict=True):
        if name in same:
            assert "refused" not in page, (name, page)
        else:
            assert "differ in size or place" in page["refused"], name


@pytest.mark.parametrize("reader, refusals", [("SimpleITKIOWithReorient", 1), ("NibabelIOWithReorient", 3)])
def test_turned_only_as_nnunets_reader_turns(reader, refusals, tmp_path):
    """SimpleITK turns pixels of negative size round, and where a header says nothing has y run to the back."""
    changes = {
        "turned": forms(FORMS["turned"], 1, FORMS["turned"], 1),
        "tilted": forms(ALONG, 1, FORMS["tilted"], 2),
        "contradict": forms(ALONG, 1, np.eye(3), 2),
        "silent": forms(ALONG, 0, ALONG, 0),
        "negative": forms(ALONG, 0, ALONG, 1, (-1, 2, 3)),
    }
    given = []
    for name, fields in changes.items():
        path = write_nifti(tmp_path / f"{name}.nii", VOLUME, **fields)
        given.append({"files": [str(path)], "reader": reader, "count": 1})
    pages = dict(zip(changes, run({"image": "readImage"}, READ, given), strict=True))
    refused = {name: page["refused"] for name, page in pages.items() if "refused" in page}
    assert "contradict each other" in refused["contradict"]
    if refusals == 3:
        assert "does not say how it lies" in refused["silent"] and "of negative size" in refused["negative"]
    assert len(refused) == refusals
    for name in pages.keys() - refused.keys():
        image = sitk.DICOMOrient(sitk.ReadImage(str(tmp_path / f"{name}.nii")), "RAS")
        expected = sitk.GetArrayFromImage(image)
        assert pages[name]["input"]["shape"] == list(expected.shape)
        np.testing.assert_array_equal(np.reshape(pages[name]["input"]["voxels"], expected.shape), expected)
        assert (pages[name]["doubt"] is not None) == (name in ("silent", "negative"))


@pytest.mark.parametrize("code, colours", [(128, 3), (2304, 4)])
@pytest.mark.parametrize("volumes", [None, 1, 2])
def test_colours_of_a_volume_and_of_several(code, colours, volumes, tmp_path):
    shape = (4, 5, 6) if volumes is None else (volumes, 4, 5, 6)
    voxels = np.random.default_rng(0).integers(0, 256, (*shape, colours), np.uint8)
    place = forms(ALONG, 1, ALONG, 1)
    path = write_nifti(tmp_path / "a.nii", voxels, code, **place)
    given = [{"files": [str(path)], "reader": "SimpleITKIO", "count": colours * (volumes or 1)}]
    for i, (slope, intercept) in enumerate(((2, 0), (0, 3))):
        scaled = write_nifti(tmp_path / f"{i}.nii", voxels, code, **place, scl_slope=slope, scl_inter=intercept)
        given.append({**given[0], "files": [str(scaled)]})
    page, *scaled = run({"image": "readImage"}, READ, given)
    expected = np.moveaxis(voxels, -1, -4).reshape(-1, 4, 5, 6)
    np.testing.assert_array_equal(np.reshape(page["voxels"], expected.shape), expected)
    assert all("holds colours with a scale" in one["refused"] for one in scaled)
