"""--c from a checkpoint of another recipe: refused, with the way to continue; its weights can be taken."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

from nnunetv2_lightm.trainers.safeguards import NoTrainingStateError, OtherRecipeError

ADAMW, MUON = "nnUNetTrainerLightMUNetAdamW_2epochs_1iters", "nnUNetTrainerLightMUNet_2epochs_1iters"
SGD = "nnUNetTrainerLightMUNetPaperSGD_2epochs_1iters"
BATCH = {"data": torch.arange(4096.0).sin().view(2, 1, 8, 16, 16), "target": torch.ones(2, 1, 8, 16, 16)}


@pytest.fixture
def checkpoint(dataset):
    """A trainer of that name and its checkpoint after one step."""

    def make(name: str):
        trainer = dataset.trainer(name)
        trainer.initialize()
        trainer.train_step(BATCH)
        file = Path(trainer.output_folder, "checkpoint_latest.pth")
        trainer.save_checkpoint(str(file))
        return trainer, file

    return make


@pytest.mark.parametrize(("of", "by"), [(ADAMW, MUON), (MUON, ADAMW), (SGD, ADAMW), (MUON, SGD)])
def test_another_recipe_is_refused(dataset, checkpoint, of, by):
    """Copied to where this trainer looks for its own."""
    _, file = checkpoint(of)
    trainer = dataset.trainer(by)
    target = Path(trainer.output_folder, file.name)
    shutil.copyfile(file, target)
    with pytest.raises(OtherRecipeError) as error:
        dataset.continued(trainer)
    message = str(error.value)
    assert message.startswith(f"{target}: the checkpoint was made with another recipe: its optimiser had ")
    assert "made the checkpoint (-tr), or" in message and "-pretrained_weights" in message


@pytest.mark.parametrize("name", [ADAMW, MUON, SGD])
def test_its_own_is_continued(dataset, checkpoint, name):
    stopped, _ = checkpoint(name)
    continued = dataset.trainer(name)
    dataset.continued(continued)
    losses = [float(trainer.train_step(BATCH)["loss"]) for trainer in (stopped, continued)]
    assert losses[0] == losses[1]
    for mine, theirs in zip(stopped.network.parameters(), continued.network.parameters()):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_a_checkpoint_for_prediction_alone_is_refused(dataset, checkpoint):
    """As `export --zip` and `import-released` leave it where a training looks for its own."""
    _, file = checkpoint(ADAMW)
    content = torch.load(file, weights_only=False)
    kept = ("network_weights", "trainer_name", "init_args", "inference_allowed_mirroring_axes")
    torch.save({name: content[name] for name in kept}, file)
    with pytest.raises(NoTrainingStateError) as error:
        dataset.continued(dataset.trainer(ADAMW))
    assert str(error.value).startswith(f"{file}: has weights and no state of a training")
    assert "-pretrained_weights" in str(error.value)


@pytest.mark.parametrize(("of", "by"), [(ADAMW, MUON), (MUON, ADAMW)])
def test_its_weights_can_be_taken(dataset, checkpoint, of, by):
    """-pretrained_weights; the heads stay the new network's."""
    source, file = checkpoint(of)
    trainer = dataset.trainer(by)
    trainer.initialize()
    load_pretrained_weights(trainer.network, str(file))
    assert torch.equal(trainer.network.bottleneck[0].projection.weight, source.network.bottleneck[0].projection.weight)
    assert math.isfinite(trainer.train_step(BATCH)["loss"])  # CE minus Dice: of either sign
