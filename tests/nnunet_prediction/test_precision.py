"""Reduced precision as CUDA's autocast has it: nnU-Net predicts in it on every GPU, and trains in it."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest
import torch
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as trainer_module
from torch.nn.utils import parameters_to_vector

from benchmarks.speed.harness.cuda_autocast import cuda_rules
from nnunetv2_lightm import LightMUNet
from nnunetv2_lightm.layers import SelectiveSSM, depthwise, rvm
from nnunetv2_lightm.networks import lightm_unet
from nnunetv2_lightm.ops.backends import cpu_native, load_backend, native_rvm
from nnunetv2_lightm.trainers import find_trainer

from .cuda_autocast import dtypes

pytestmark = pytest.mark.slow

autocast_dtypes = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
configurations = pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
each_with_a_dtype = pytest.mark.parametrize(
    ("configuration", "dtype"), [("2d", torch.bfloat16), ("3d_fullres", torch.float16)]
)


@pytest.fixture(autouse=True)
def rules():
    with cuda_rules():
        yield


@pytest.fixture(params=["compiled", "compiled_scan", "torch_chunked"])
def path(request, monkeypatch):
    """What is compiled: whole layers; the scan alone, as on a GPU; nothing."""
    if request.param == "torch_chunked":
        monkeypatch.setenv("NNUNETV2_LIGHTM_BACKEND", "torch_chunked")
        return request.param
    reason = cpu_native.not_supported_reason("cpu")
    if reason is not None:
        pytest.skip(f"cpu_native {reason}")
    if request.param == "compiled_scan":
        monkeypatch.setattr(rvm, "fused_rvm_layer_usable", lambda *_: False)
        for module in (depthwise, lightm_unet):
            monkeypatch.setattr(module, "fused_depthwise_usable", lambda *_: False)
    return request.param


@pytest.fixture
def make_trainer(planned):
    """A trainer with the same weights each time, and a batch; ``hot`` is the value of one voxel in it."""
    plans = (planned.preprocessed / "nnUNetPlans.json").read_text()
    dataset_json = json.loads((planned.raw / "dataset.json").read_text())

    def make(configuration, hot=0.0):
        torch.manual_seed(0)
        arguments = (json.loads(plans) | {"continue_training": False}, configuration, 0, dataset_json)
        trainer = find_trainer("nnUNetTrainerLightMUNet")(*arguments, torch.device("cpu"))
        trainer.initialize()
        size = trainer.configuration_manager.patch_size
        data, target = torch.randn(2, 1, *size), torch.randint(0, 3, (2, 1, *size)).float()
        data[(0, 0, *(length // 2 for length in size))] = hot
        return trainer, {"data": data, "target": target}

    with planned.in_this_process():
        yield make


def use_autocast(patch, dtype):
    """At the places where nnU-Net has autocast on CUDA and nothing elsewhere."""
    context = nullcontext if dtype is None else lambda: torch.autocast("cpu", dtype)
    for module in (trainer_module, predict_from_raw_data):
        patch.setattr(module, "dummy_context", context)


def predict(trainer, batch):
    """Logits of the first image, as nnUNetPredictor accumulates them, mirrored along one axis.

    Without the Gaussian weights, whose product with a logit is below float16's normal numbers in a patch's corners.
    """
    image = batch["data"][0]
    options = {"device": torch.device("cpu"), "allow_tqdm": False, "use_gaussian": False}
    predictor = predict_from_raw_data.nnUNetPredictor(**options)
    managers = (trainer.plans_manager, trainer.configuration_manager)
    predictor.manual_initialization(trainer.network, *managers, None, trainer.dataset_json, "", (0,))
    logits = predictor.predict_sliding_window_return_logits(image if image.ndim == 4 else image[:, None])
    assert torch.isfinite(logits).all()
    return logits.float()


def assert_close(found, expected, dtype):
    """Up to eight units in the last place of the largest value."""
    assert torch.isfinite(found).all()
    error = (found - expected).abs().max() / expected.abs().max()
    assert error < 8 * torch.finfo(dtype).eps


@autocast_dtypes
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_rules_are_those_of_cuda(monkeypatch, spatial_dims, dtype):
    """The dtypes of all modules and of nnU-Net's loss; else the tests here would be of something else."""
    monkeypatch.setenv("NNUNETV2_LIGHTM_BACKEND", "torch_chunked")
    loss = DC_and_CE_loss({"batch_dice": True, "ddp": False}, {}, dice_class=MemoryEfficientSoftDiceLoss)
    found = dtypes("cuda", dtype, spatial_dims, loss)
    assert found[""][-1] == dtype and found["loss"] == torch.float32, "autocast was on"
    assert dtypes("cpu", dtype, spatial_dims, loss) == found


@autocast_dtypes
@configurations
def test_scan_computes_in_float32(make_trainer, path, configuration, dtype, monkeypatch):
    seen = []

    def spied(function):
        def spy(*arguments, **options):
            given = [*arguments, *options.values()]
            tensors = [t for a in given for t in (a if isinstance(a, list) else [a]) if isinstance(t, torch.Tensor)]
            seen.extend(t.dtype for t in tensors if t.is_floating_point())
            return function(*arguments, **options)

        return spy

    module = {"compiled": native_rvm, "compiled_scan": cpu_native, "torch_chunked": load_backend("torch_chunked")}[path]
    for name in ("forward", "backward"):
        monkeypatch.setattr(module, name, spied(getattr(module, name)))
    use_autocast(monkeypatch, dtype)
    trainer, batch = make_trainer(configuration)
    trainer.train_step(batch)
    layers = sum(isinstance(module, SelectiveSSM) for module in trainer.network.modules())
    assert len(seen) > 2 * 7 * layers and set(seen) == {torch.float32}


@each_with_a_dtype
@pytest.mark.parametrize("hot", [10, 1e5], ids=str)
def test_prediction_agrees_with_float32(make_trainer, path, configuration, hot, dtype, monkeypatch):
    """Also with a voxel that float16 cannot hold."""
    trainer, batch = make_trainer(configuration, hot)
    expected = predict(trainer, batch)
    use_autocast(monkeypatch, dtype)
    assert_close(predict(trainer, batch), expected, dtype)


@each_with_a_dtype
@pytest.mark.parametrize("hot", [10, 1e5], ids=str)
def test_training_agrees_with_float32(make_trainer, path, configuration, hot, dtype, monkeypatch):
    losses, gradients = {}, {}
    for used in (None, dtype):
        use_autocast(monkeypatch, used)
        trainer, batch = make_trainer(configuration, hot)
        trainer.grad_scaler = torch.amp.GradScaler("cpu")  # as on CUDA; it scales by 65536
        losses[used] = [float(trainer.train_step(batch)["loss"])]
        gradients[used] = parameters_to_vector(p.grad for p in trainer.network.parameters())
        losses[used].append(float(trainer.train_step(batch)["loss"]))
        assert trainer.grad_scaler.get_scale() == 65536, "no gradient was infinite"
    assert losses[dtype] == pytest.approx(losses[None], abs=5e-3)
    assert_close(gradients[dtype], gradients[None], dtype)


@pytest.mark.parametrize("path", ["compiled_scan", "torch_chunked"], indirect=True)
def test_scan_output_beyond_float16(make_trainer, path, monkeypatch):
    """A LayerNorm follows it, so that nothing in the training holds its scale."""
    trainer, batch = make_trainer("2d")
    largest = []
    for module in trainer.network.modules():
        if isinstance(module, SelectiveSSM):
            torch.nn.init.normal_(module.x_proj.weight[module.dt_rank :], std=300)
            module.register_forward_hook(lambda _, __, y: largest.append(y.abs().max()))
    expected = predict(trainer, batch)
    assert max(largest) > torch.finfo(torch.float16).max
    use_autocast(monkeypatch, torch.float16)
    assert_close(predict(trainer, batch), expected, torch.float16)


def test_compiles_under_autocast(monkeypatch):
    """As nnU-Net has it on CUDA by default."""
    monkeypatch.setenv("NNUNETV2_LIGHTM_BACKEND", "torch_chunked")
    torch.manual_seed(0)
    network = LightMUNet(1, 2, spatial_dims=2, features=8, d_state=4)
    image = torch.randn(1, 1, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        expected = network(image)
        logits = torch.compile(network, backend="aot_eager", fullgraph=True)(image)
    torch.testing.assert_close(logits, expected)
    logits.float().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())
