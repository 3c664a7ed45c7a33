"""NaN and infinity: stopped before they reach the weights, and named by the case; in prediction by the patch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from nnunetv2_lightm.trainers.safeguards import NotFiniteError, finite, safeguarded

SHAPE = (8, 16, 16)


@pytest.fixture
def trainer(dataset):
    trainer = dataset.trainer()
    trainer.initialize()
    return trainer


def batch_of(*cases: str) -> dict:
    random = torch.Generator().manual_seed(0)
    shape = (len(cases), 1, *SHAPE)
    target = torch.randint(0, 3, shape, generator=random).float()
    return {"data": torch.randn(shape, generator=random), "target": target, "keys": list(cases)}


def weights_of(trainer) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in trainer.network.parameters()]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("step", ["train_step", "validation_step"])
def test_a_bad_image_is_named_before_the_weights_change(dataset, trainer, bad, step):
    image = np.zeros((1, *SHAPE))
    image[0, 3, 4, 5:8] = bad
    dataset.write_case("case_b", image, np.ones((1, *SHAPE)))
    batch = batch_of("case_a", "case_b")
    batch["data"][1] = torch.from_numpy(image)
    before = weights_of(trainer)
    with pytest.raises(NotFiniteError, match="case_b, 3 of 2048 voxels in .*case_b") as error:
        getattr(trainer, step)(batch)
    assert "case_a" not in str(error.value)
    assert all(torch.equal(*pair) for pair in zip(before, weights_of(trainer)))


def test_what_the_augmentation_made_is_not_laid_to_the_image(trainer):
    batch = batch_of("case_a", "case_b")
    batch["data"][0, 0, 0] = float("nan")
    with pytest.raises(NotFiniteError, match="case_a, whose preprocessed image is finite: the augmentation"):
        trainer.train_step(batch)


def test_a_training_ends_at_the_first_bad_batch(dataset):
    """Through nnU-Net's own loader, in both cases of the fold; no checkpoint is written."""
    for case in ("case_a", "case_b"):
        dataset.write_case(case, np.full((1, *SHAPE), np.nan), np.ones((1, *SHAPE)))
    trainer = dataset.trainer()
    with pytest.raises(NotFiniteError, match="case_[ab], 2048 of 2048 voxels"):
        trainer.run_training()
    assert list(dataset.results.rglob("*.pth")) == []


def test_large_values_are_no_fault():
    """Their sum is infinite, they are not."""
    values = torch.full((8,), torch.finfo(torch.float32).max)
    assert values.sum().isinf()
    assert finite.all_finite(values)
    assert not finite.all_finite(torch.tensor([float("inf"), -float("inf")]))


def test_a_training_that_diverges_is_stopped(trainer, monkeypatch):
    monkeypatch.setattr(trainer, "loss", lambda output, target: output.sum() * float("inf"))
    with pytest.raises(NotFiniteError, match="has diverged: the loss is (nan|-?inf) although the images are finite"):
        trainer.train_step(batch_of("case_a", "case_b"))


def test_weights_that_the_last_step_has_spoiled_do_not_replace_sound_ones(trainer, tmp_path):
    """Its loss was finite, and there is no step after it that would tell."""
    file = tmp_path / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(file))
    sound = file.read_bytes()
    with torch.no_grad():
        next(trainer.network.parameters())[0] = float("nan")
    with pytest.raises(NotFiniteError, match="the loss was finite, but not the gradients, and 1 parameters are NaN"):
        trainer.save_checkpoint(str(file))
    assert file.read_bytes() == sound


def test_a_step_that_the_gradient_scaler_skips_is_none(trainer, monkeypatch):
    """Under CUDA's autocast the loss may overflow; the weights then stay as they are, and nnU-Net continues."""
    monkeypatch.setattr(trainer, "loss", lambda output, target: output.sum() * float("inf"))
    monkeypatch.setattr(trainer.optimizer, "step", lambda: None)
    assert not np.isfinite(trainer.train_step(batch_of("case_a", "case_b"))["loss"])


def test_the_check_is_cheap(trainer):
    """One pass over the images, which a training step passes over hundreds of times."""
    batch = batch_of("case_a", "case_b")
    calls = []

    class Counting(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            calls.append(function)
            return function(*args, **(kwargs or {}))

    with Counting():
        finite.check_batch(batch, trainer._describe_case)
    assert len([call for call in calls if call is not torch.Tensor.__bool__]) <= 2


def test_an_image_with_nan_is_not_segmented(trainer):
    """nnU-Net looks for infinite logits alone, and writes a segmentation of NaN."""
    predictor = nnUNetPredictor(device=torch.device("cpu"), use_mirroring=False, allow_tqdm=False)
    arguments = (trainer.plans_manager, trainer.configuration_manager, None, trainer.dataset_json, "", None)
    predictor.manual_initialization(trainer.network, *arguments)
    image = torch.randn(1, 8, 24, 16)
    assert predictor.predict_sliding_window_return_logits(image).isfinite().all()
    image[0, 0, 20, 0] = float("nan")
    with pytest.raises(NotFiniteError, match="1 of the 2048 values in a patch of the image to segment"):
        predictor.predict_sliding_window_return_logits(image)


@pytest.mark.parametrize("trained_before", [False, True])
def test_an_image_with_nan_is_refused_by_a_compiled_network_too(trained_before, capfd):
    """Whether a training has compiled it before, as for nnU-Net's final validation on CUDA, or not."""
    torch._dynamo.reset()
    network = safeguarded(nn.Conv2d(1, 2, 1))
    compiled, image = torch.compile(network, backend="aot_eager"), torch.randn(1, 1, 4, 4)
    if trained_before:
        compiled.train()(image).sum().backward()
    compiled.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(image), network(image))
        with pytest.raises(NotFiniteError):
            compiled(image * float("nan"))
    assert "raph break" not in capfd.readouterr().err


def test_the_check_of_prediction_takes_every_call_that_the_network_takes():
    network = safeguarded(nn.Conv2d(1, 2, 1)).eval()
    images = torch.randn(3, 1, 1, 4, 4)
    with pytest.raises(NotFiniteError):
        network(input=images[0] * float("nan"))
    expected = torch.stack([network(image) for image in images])
    torch.testing.assert_close(torch.vmap(network)(images), expected)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert network(mode.from_tensor(images[0])).shape == expected[0].shape
    with pytest.raises(TypeError, match="missing"):
        network()


def test_the_check_of_prediction_stands_in_the_way_of_no_export():
    network = safeguarded(nn.Conv2d(1, 2, 1)).eval()
    image = torch.randn(1, 1, 4, 4)
    exported = torch.export.export(network, (image,)).module()
    torch.testing.assert_close(exported(image), network(image))
    bad = image * float("nan")
    assert torch.jit.trace(network, image)(bad).isnan().all()
    with pytest.raises(NotFiniteError):
        network(bad)
