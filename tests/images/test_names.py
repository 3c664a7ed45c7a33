"""Names that are not UTF-8."""

from __future__ import annotations

import os
import sys

import pytest

from nnunetv2_lightm.escaping import escape_name
from nnunetv2_lightm.images.check import check_image
from nnunetv2_lightm.images.faults import ImageFault
from nnunetv2_lightm.images.names import is_utf8, refusal_of_name

LATIN = os.fsdecode(b"Leber\xfc")


def test_such_a_name_is_printed_and_refused():
    assert not is_utf8(LATIN)
    assert escape_name(f"/data/{LATIN}/x.nii") == "/data/Leber\\xfc/x.nii"
    assert "Leber\\xfc is not UTF-8" in refusal_of_name(LATIN)


@pytest.mark.parametrize("name", ["Leber", "Leberü", "肝臓", "a b"])
def test_other_names_are_not(name):
    assert is_utf8(name) and escape_name(name) == name and refusal_of_name(name) is None


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
def test_a_file_of_such_a_name_is_refused(tmp_path):
    path = tmp_path / f"{LATIN}.nii.gz"
    path.write_bytes(b"")
    with pytest.raises(ImageFault, match=r"Leber\\xfc"):
        check_image(path)
