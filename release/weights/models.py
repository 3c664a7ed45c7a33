"""Which models there are: data, plans, budget, the cases kept out, and what the card says of them.

No case in held_out.json was scored by a run that chose the recipe. Of the hippocampus they are the validation cases of
fold 2 of nnU-Net's split (trials scored folds 0 and 1); of Montgomery a random fifth of what is neither among the
study's test and validation cases nor in the search's validation split.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.accuracy.comparisons import HIPPOCAMPUS, NEW, DataSet

TRAINER = NEW
FOLD = "all"  # of the cases that are not kept out; none of them is needed to choose anything
HELD_OUT = json.loads(Path(__file__).with_name("held_out.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Model:
    """A model to hand out.

    Attributes:
        title: For the card.
        data: The data set, with the plans.
        held_out: Cases that are scored, and nothing else.
        cases: Pattern of the names of all cases; a data set with others is refused.
        budget: Suffix of the trainer, without the seed.
        source: Where the images are from.
        licence: Of the weights, as the data's has it.
        citation: To cite in addition to this package, nnU-Net and the paper.
        use: Images that it is for, and what it finds in them.
        limits: What it is not for, in addition to diagnosis.
    """

    title: str
    data: DataSet
    held_out: tuple[str, ...]
    cases: str
    budget: str
    source: str
    licence: str
    citation: str
    use: str
    limits: str

    @property
    def ending(self) -> str:
        """File ending of its images."""
        return ".png" if self.data.configuration == "2d" else ".nii.gz"


MODELS = {
    "hippocampus": Model(
        title="LightM-UNet for the hippocampus in MRI",
        data=replace(HIPPOCAMPUS, plans="nnUNetPlans"),
        held_out=tuple(HELD_OUT["hippocampus"]),
        cases=r"hippocampus_\d+",
        budget="40epochs_256iters",
        source="Task04_Hippocampus of the [Medical Segmentation Decathlon](http://medicaldecathlon.com), from "
        "Vanderbilt University Medical Center",
        licence="[CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/), the licence of the images",
        citation="Antonelli et al., *The Medical Segmentation Decathlon*, Nature Communications 13:4128, 2022",
        use="T1-weighted MRI of the brain, a box of about 35x50x36 mm around one hippocampus. Labels: anterior part "
        "(1), posterior part (2).",
        limits="Not for images of the whole brain: the network has never seen what lies around the box. Not tested on "
        "other contrasts, or on other scanners and protocols than those of one hospital.",
    ),
    "lungs": Model(
        title="LightM-UNet for the lungs in chest X-rays",
        data=DataSet(
            "Dataset804_MontgomeryLungs",
            "2d",
            "nnUNetPlans",
            "nnUNetv2_lightm convert montgomery-shenzhen {data}/chest_xray_masks_and_labels_256 --only montgomery "
            "--split none --resize 256 256 --id 804 --name MontgomeryLungs",
            0.6,
            not_pictured=None,
        ),
        held_out=tuple(HELD_OUT["lungs"]),
        cases=r"MCUCXR_\d+_\d",
        budget="40epochs_64iters",
        source="Montgomery County chest X-ray set of the U.S. National Library of Medicine; nothing of the Shenzhen "
        "set, whose masks are for non-commercial use (the names are checked)",
        licence="[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/); the National Library of Medicine asks to "
        "be named as the source of its images, and for the citations below",
        citation="Jaeger et al., *Two public chest X-ray datasets for computer-aided screening of pulmonary diseases*, "
        "Quant Imaging Med Surg 4(6), 2014; Candemir et al., *Lung segmentation in chest radiographs using anatomical "
        "atlases with nonrigid registration*, IEEE TMI 33(2), 2014",
        use="Frontal chest X-rays, resized to 256x256 pixels whatever their shape was, as gray PNG of 8 bits. Label: "
        "both lungs (1).",
        limits="Not for images of another size: PNG has no spacing, so bring them to 256x256 pixels first. Not for "
        "lateral views. Not tested on X-rays of other hospitals.",
    ),
}
