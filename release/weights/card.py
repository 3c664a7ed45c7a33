"""The model card: everything in it is from the files of the run that made the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nnunetv2_lightm.escaping import shell_line
from nnunetv2_lightm.evaluation.bootstrap import RESAMPLES
from nnunetv2_lightm.evaluation.scores import Evaluation
from nnunetv2_lightm.evaluation.tables import markdown_table
from nnunetv2_lightm.runs.progress import format_seconds

from .models import FOLD, Model

VERSIONS = ("nnunetv2", "nnunetv2-lightm", "torch", "python")


@dataclass(frozen=True)
class Facts:
    """What the run that made a model left behind.

    Attributes:
        archive: File name of the zip.
        trainer: With budget and seed.
        device: That it was trained on.
        train_cases: Number of cases that it was trained on.
        plans: Content of plans.json.
        evaluation: Of the installed model, on the cases kept out.
        equal_labels: Share of the voxels of these cases that get the same labels from the weights as trained.
        train_seconds: Wall-clock time of the training with nnU-Net's final validation.
        machine: Processor, memory, system and versions.
        sha256: Of each checkpoint, by its name in the zip.
    """

    archive: str
    trainer: str
    device: str
    train_cases: int
    plans: Mapping[str, Any]
    evaluation: Evaluation
    equal_labels: float
    train_seconds: float
    machine: Mapping[str, str]
    sha256: Mapping[str, str]


def model_card(model: Model, facts: Facts) -> str:
    """The card as Markdown."""
    evaluation, install = facts.evaluation, "nnUNetv2_install_pretrained_model_from_zip"
    ((checkpoint, sha256),) = facts.sha256.items()
    options = ("-d", model.data.name, "-c", model.data.configuration, "-p", model.data.plans)
    predict = shell_line("nnUNetv2_predict", *options, "-tr", facts.trainer, "-f", FOLD)
    sections = {
        "Use": f"""{model.use}

In an environment with nnunetv2-lightm, which brings nnU-Net:

```bash
export nnUNet_results=FOLDER
{shell_line(install, facts.archive)}
{predict} -i IMAGES -o SEGMENTATIONS
```

Without a GPU add `-device cpu`. Images are named as nnU-Net wants them, `CASE_0000{model.ending}`.

The checkpoint is `$nnUNet_results/{checkpoint}`. To train further on other data with as many dimensions and channels:
`nnUNetv2_train ... -tr {facts.trainer.partition("_")[0]} -pretrained_weights CHECKPOINT`.""",
        "Limits": f"""{model.limits}

It has seen {facts.train_cases} cases of one source. Test it on labelled images of your own before you rely on it.""",
        "Scores": f"""On {len(evaluation.cases)} cases that were not trained on, are not in the statistics of the
plans, and were scored by no run that chose the recipe; the last checkpoint counts, whatever its score. Predicted by
nnU-Net from the installed zip. Mean ± standard deviation over the cases, in brackets the bootstrap 95 % interval of
the mean ({RESAMPLES:,} resamples of cases).

{markdown_table(evaluation)}

The cases: {", ".join(sorted(evaluation.cases))}.""",
        "Training": "\n".join(f"- **{what}**: {said}" for what, said in _training(model, facts).items())
        + f"\n- **Checkpoint**: `{checkpoint}`, SHA-256 `{sha256}`",
        "Licence and citation": f"""The weights: {model.licence}. The code: Apache-2.0.

Please cite {model.citation}; Liao et al., *LightM-UNet*, arXiv:2403.05246, 2024; Isensee et al., *nnU-Net*, Nature
Methods 18, 2021; and nnunetv2-lightm, by its CITATION.cff.""",
    }
    head = f"# {model.title}\n\n**For research only. Not a medical device, not for diagnosis or treatment.**\n"
    return head + "".join(f"\n## {title}\n\n{text}\n" for title, text in sections.items())


def _training(model: Model, facts: Facts) -> dict[str, str]:
    """What the model was made from and how."""
    planned = facts.plans["configurations"][model.data.configuration]
    patch, spacing = ("x".join(f"{size:g}" for size in planned[name]) for name in ("patch_size", "spacing"))
    unit = "pixels" if model.ending == ".png" else "mm"  # PNG has no spacing
    return {
        "Images": model.source,
        "Cases": f"{facts.train_cases} trained on, {len(facts.evaluation.cases)} kept out",
        "Network and recipe": f"`{facts.trainer}` of nnunetv2-lightm; budget and seed are in the name",
        "Plan": f"`{model.data.configuration}`, patch {patch}, spacing {spacing} {unit}, batch {planned['batch_size']}",
        "Versions": ", ".join(f"{name} {facts.machine[name]}" for name in VERSIONS),
        "Trained on": f"{facts.device} ({facts.machine['processor']}), {format_seconds(facts.train_seconds)} with "
        "nnU-Net's final validation",
        "Precision": f"matrices in float16; {100 * facts.equal_labels:.4f} % of the voxels of the cases kept out get "
        "the labels that the trained weights give",
    }
