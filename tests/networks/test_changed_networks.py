"""Networks that users have changed from outside: what they attached runs on every backend, and results are the same."""

from __future__ import annotations

import types

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from nnunetv2_lightm.layers import RVMLayer
from nnunetv2_lightm.networks import LightMUNet, LightMUNetReleased
from nnunetv2_lightm.networks.lightm_unet import Head, Stem
from nnunetv2_lightm.ops.backends import ENVIRONMENT_VARIABLE, cpu_native

REASON = cpu_native.not_supported_reason("cpu")
pytestmark = [
    pytest.mark.skipif(REASON is not None, reason=f"cpu_native: {REASON}"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

LAYER = "encoder.0.layers.0"
# Modules that compiled operators stand for: of the stem, of an RVM layer, of a Decoder Block, of the head.
LINEAR = ("stem.pointwise", f"{LAYER}.vssm.in_proj", f"{LAYER}.vssm.ssms.0.x_proj", f"{LAYER}.projection")
LINEAR += (f"{LAYER}.vssm.ssms.0.dt_proj", "decoder.seg_layers.0.pointwise")
CONVOLUTIONS = ("stem.depthwise", f"{LAYER}.vssm.dwconv", "decoder.blocks.0.dwconv", "decoder.seg_layers.0.depthwise")
NORMS = (f"{LAYER}.norm_in", f"{LAYER}.vssm.norm", f"{LAYER}.norm_out")
WITH_WEIGHTS = (*LINEAR, *CONVOLUTIONS)


def make_network(**options):
    torch.manual_seed(0)
    small = {"features": 16, "d_state": 3, "rvm_layers": (1, 2), "bottleneck_rvm_layers": 1}
    network = LightMUNet(2, 3, spatial_dims=2, **(small | options))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def make_image():
    return torch.randn(2, 2, 9, 12, generator=torch.Generator().manual_seed(1))


def results(network, backend, monkeypatch):
    """Logits, and gradients by name where parameters have some."""
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, backend)
    torch.manual_seed(2)
    network.zero_grad()
    logits = network(make_image())
    if logits.requires_grad:
        logits.square().mean().backward()
    grads = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    return {"logits": logits.detach(), **grads}


def assert_same_on_both_backends(make, monkeypatch):
    expected = results(make(), "torch_chunked", monkeypatch)
    got = results(make(), "cpu_native", monkeypatch)
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        scale = tensor.abs().max().item()
        torch.testing.assert_close(
            got[name], tensor, rtol=1e-4, atol=1e-4 * scale + 1e-9, msg=lambda m, n=name: f"{n}: {m}"
        )


def pruned(module):
    prune.l1_unstructured(module, "weight", 0.5)


def structurally_pruned(module):
    prune.ln_structured(module, "weight", 0.5, n=2, dim=0)


def pruned_for_good(module):
    pruned(module)
    prune.remove(module, "weight")


def with_replaced_forward(module):
    original = module.forward
    module.forward = types.MethodType(lambda self, *args: 2 * original(*args), module)


def halving_hook(module):
    module.register_forward_hook(lambda module, args, output: output / 2)


def halving_pre_hook(module):
    module.register_forward_pre_hook(lambda module, args: (args[0] / 2, *args[1:]))


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


CHANGES = {
    "pruned": pruned,
    "structurally pruned": structurally_pruned,
    "pruned for good": pruned_for_good,
    "weight norm, old style": weight_norm,
    "weight norm": parametrizations.weight_norm,
    "spectral norm, old style": spectral_norm,
    "spectral norm": parametrizations.spectral_norm,
    "parametrized": lambda module: parametrize.register_parametrization(module, "weight", Doubled()),
    "forward replaced": with_replaced_forward,
    "forward hook": halving_hook,
    "forward pre-hook": halving_pre_hook,
    "buffer": lambda module: module.register_buffer("extra", torch.ones(1)),
    "without bias": lambda module: module.register_parameter("bias", None),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_changed_weights(name, change, monkeypatch):
    def make():
        network = make_network()
        CHANGES[change](network.get_submodule(name))
        return network

    assert_same_on_both_backends(make, monkeypatch)


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m, "eps", 0.5),
        lambda m: m.register_parameter("bias", None),
        lambda m: m.register_parameter("weight", None),
        halving_hook,
        pruned,
    ],
    ids=["eps", "no bias", "no weight", "hook", "pruned"],
)
def test_changed_norms(name, change, monkeypatch):
    def make():
        network = make_network()
        change(network.get_submodule(name))
        return network

    assert_same_on_both_backends(make, monkeypatch)


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize(
    "change",
    [
        {"padding_mode": "reflect", "_reversed_padding_repeated_twice": [1, 1, 1, 1]},
        {"dilation": (2, 2), "padding": (2, 2)},
    ],
    ids=["reflect", "dilated"],
)
def test_changed_convolutions(name, change, monkeypatch):
    def make():
        network = make_network()
        for attribute, value in change.items():
            setattr(network.get_submodule(name), attribute, value)
        return network

    assert_same_on_both_backends(make, monkeypatch)


@pytest.mark.parametrize(
    ("owner", "parameter"), [(LAYER, "scale"), (f"{LAYER}.vssm.ssms.0", "A_log"), (f"{LAYER}.vssm.ssms.0", "D")]
)
def test_pruned_parameters_of_our_own_modules(owner, parameter, monkeypatch):
    def make():
        network = make_network()
        prune.random_unstructured(network.get_submodule(owner), parameter, 0.5)
        return network

    torch.manual_seed(5)
    assert_same_on_both_backends(lambda: torch.manual_seed(5) and make(), monkeypatch)


class OtherLinear(nn.Linear):
    """The same parameters as nn.Linear, but another function."""

    def forward(self, x):
        return super().forward(x).tanh()


class OtherLayer(RVMLayer):
    def mix(self, x):
        return super().mix(x).tanh()


def test_subclasses(monkeypatch):
    def make():
        network = make_network()
        network.get_submodule(f"{LAYER}.vssm.in_proj").__class__ = OtherLinear
        network.get_submodule("stem.pointwise").__class__ = OtherLinear
        network.get_submodule("bottleneck.0").__class__ = OtherLayer
        return network

    assert_same_on_both_backends(make, monkeypatch)


def test_a_class_changed_for_all(monkeypatch):
    """As tools do that wrap layers: the method itself is replaced."""
    original = nn.LayerNorm.forward
    monkeypatch.setattr(nn.LayerNorm, "forward", lambda self, x: original(self, x).tanh())
    assert_same_on_both_backends(make_network, monkeypatch)


def test_fully_pruned_network(monkeypatch):
    def make():
        network = make_network()
        weights = [(m, "weight") for m in network.modules() if getattr(m, "weight", None) is not None]
        prune.global_unstructured(weights, prune.L1Unstructured, amount=0.4)
        return network

    assert_same_on_both_backends(make, monkeypatch)


@pytest.mark.parametrize(
    "targets", [["in_proj", "out_proj"], ["pointwise"], ["dt_proj", "x_proj"], "all-linear"], ids=str
)
def test_low_rank_adapters(targets, monkeypatch):
    peft = pytest.importorskip("peft", reason="pip install 'nnunetv2-lightm[test]'")

    def make():
        config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False)
        return peft.inject_adapter_in_model(config, make_network())

    assert any("lora" in name for name, _ in make().named_parameters())
    assert_same_on_both_backends(make, monkeypatch)
    merged = make()
    before = results(merged, "cpu_native", monkeypatch)["logits"]
    for module in merged.modules():
        if isinstance(module, peft.tuners.lora.Linear):
            module.merge()
    assert (results(merged, "cpu_native", monkeypatch)["logits"] - before).abs().max() < 1e-3 * before.abs().max()


def test_dynamically_quantised(monkeypatch):
    def make():
        return torch.ao.quantization.quantize_dynamic(make_network().eval(), {nn.Linear}, dtype=torch.qint8)

    assert any("quantized" in type(m).__module__ for m in make().modules())
    with torch.no_grad():
        expected = results(make(), "torch_chunked", monkeypatch)["logits"]
        got = results(make(), "cpu_native", monkeypatch)["logits"]
    # Activations are rounded to 8 bits: a difference in the last bit of a float may become one of these.
    assert (got - expected).abs().max() < 0.05 * expected.abs().max()
    assert not torch.equal(got, results(make_network(), "cpu_native", monkeypatch)["logits"])


@pytest.mark.parametrize(
    ("kind", "spatial_dims", "modules"), [(LightMUNet, 2, 153), (LightMUNet, 3, 153), (LightMUNetReleased, 2, 281)]
)
@pytest.mark.parametrize("backend", ["cpu_native", "torch_chunked"])
def test_hooks_of_all_modules_run(backend, kind, spatial_dims, modules, monkeypatch):
    """And nothing changes what a hook has kept, nor the results."""
    network = kind(1, 2, spatial_dims=spatial_dims, features=16)
    names = [name for name, _ in network.named_modules()]
    assert len(names) == modules
    image = torch.randn(1, 1, *(16,) * spatial_dims)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "torch_chunked")
    expected = network(image)
    parameters = [p for p in network.parameters() if p.requires_grad]
    expected_grads = torch.autograd.grad(expected.square().sum(), parameters)

    monkeypatch.setenv(ENVIRONMENT_VARIABLE, backend)
    before, after, backward, kept = set(), set(), set(), []

    def keep(name, output):
        after.add(name)
        if isinstance(output, torch.Tensor):
            kept.append((name, output.detach(), output.detach().clone()))

    for name, module in network.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: before.add(name))
        module.register_forward_hook(lambda module, args, output, name=name: keep(name, output))
        if not isinstance(module, nn.ModuleList):  # they return lists
            module.register_full_backward_hook(lambda *_, name=name: backward.add(name))
    logits = network(image)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    for parameter, grad in zip(parameters, expected_grads, strict=True):
        parameter.grad = -grad
    logits.square().sum().backward()
    for parameter, grad in zip(parameters, expected_grads, strict=True):
        assert parameter.grad.abs().max() <= 1e-3 * grad.abs().max() + 1e-4  # what is left of the difference
    called = {name for name, module in network.named_modules() if type(module).forward is not nn.ModuleList.forward}
    assert called == before == after
    assert {name for name, m in network.named_modules() if not isinstance(m, nn.ModuleList)} == backward
    for name, output, copy in kept:
        assert torch.equal(output, copy), f"{name}: what it returned was changed later"


@pytest.mark.parametrize(
    "name", [*WITH_WEIGHTS, *NORMS, f"{LAYER}.vssm", f"{LAYER}.vssm.ssms.0", LAYER, "stem", "decoder"]
)
def test_one_hook_runs(name, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "cpu_native")
    network = make_network()
    seen = []
    network.get_submodule(name).register_forward_hook(lambda *_: seen.append("forward"))
    network.get_submodule(name).register_full_backward_hook(lambda *_: seen.append("backward"))
    network(make_image()).sum().backward()
    assert sorted(set(seen)) == ["backward", "forward"]


def test_global_hooks_run(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "cpu_native")
    network, seen = make_network(), set()
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.add(module))
    try:
        network(make_image())
    finally:
        handle.remove()
    assert seen == set(network.modules())


def test_only_what_was_changed_leaves_its_operator(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "cpu_native")
    network = make_network()
    layers = [m for m in network.modules() if isinstance(m, (RVMLayer, Stem, Head))]
    assert all(layer.fused("cpu") for layer in layers)
    changed = network.get_submodule(LAYER)
    handle = changed.vssm.norm.register_forward_hook(lambda *_: None)
    assert [layer for layer in layers if not layer.fused("cpu")] == [changed]
    handle.remove()
    assert all(layer.fused("cpu") for layer in layers)


def test_half_of_a_layer_in_another_dtype_is_left_to_pytorch(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "cpu_native")
    network = make_network()
    network.get_submodule(f"{LAYER}.vssm.in_proj").half()
    assert not network.get_submodule(LAYER).fused("cpu")
    with pytest.raises(RuntimeError, match="dtype"):
        network(make_image())
