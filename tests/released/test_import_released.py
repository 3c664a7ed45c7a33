"""From the fork's checkpoints to a model folder with which stock nnU-Net predicts; and what is refused."""

from __future__ import annotations

import json
from copy import deepcopy

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

from nnunetv2_lightm.checkpoints.safe_loading import CheckpointError
from nnunetv2_lightm.networks import LightMUNet
from nnunetv2_lightm.released.model_folder import import_released

from .fork_checkpoint import DATASET_JSON, PATCH_SIZES, fork_checkpoint, network_of, old_plans, without_values

HEAD, FIRST = "nnUNetTrainerLightMUNetReleased", "nnUNetTrainerLightMUNetReleasedFirst"


def predicted_probabilities(folder, image, folds, mirroring=False):
    """What `nnUNetv2_predict_from_modelfolder` does for one case, without its files and processes.

    Without the Gaussian weights of tiles, because in float16 they leave little of the logits at the border.
    """
    predictor = nnUNetPredictor(
        use_gaussian=False, use_mirroring=mirroring, device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(folder), use_folds=folds)
    properties = {"spacing": [1.0, 1.0, 1.0]}
    return predictor.predict_single_npy_array(image, properties, save_or_return_probabilities=True)


def random_image(configuration):
    """One patch with one channel, (1, z, y, x); z is 1 in 2D."""
    size = PATCH_SIZES[configuration]
    image = np.random.default_rng(0).normal(2, 3, size).astype(np.float32)
    return image.reshape(1, *(1,) * (3 - len(size)), *size)


@pytest.mark.parametrize("revision", ["head", "first"])
@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.filterwarnings("error:Detected old nnU-Net plans format")
def test_stock_nnunet_predicts_what_the_network_computes(tmp_path, revision, configuration):
    network = network_of(revision, configuration).eval()
    torch.save(fork_checkpoint(network.state_dict(), configuration), tmp_path / "fork.pth")
    (imported,) = import_released([tmp_path / "fork.pth"], tmp_path / "model")
    assert imported.trainer.__name__ == (HEAD if revision == "head" else FIRST)

    image = random_image(configuration)
    segmentation, probabilities = predicted_probabilities(tmp_path / "model", image, (0,))
    normalised = torch.from_numpy((image - image.mean()) / image.std())
    with torch.no_grad():
        expected = torch.softmax(network(normalised.view(1, 1, *PATCH_SIZES[configuration])), 1)
    # nnU-Net keeps logits in float16.
    np.testing.assert_allclose(probabilities, expected.view(3, *image.shape[1:]).numpy(), atol=2e-3)
    np.testing.assert_array_equal(segmentation, probabilities.argmax(0))


def test_weights_serve_a_new_training(tmp_path):
    """`nnUNetv2_train ... -pretrained_weights`."""
    trained, fresh = network_of(configuration="2d"), network_of(configuration="2d")
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1)
    torch.save(fork_checkpoint(trained.state_dict(), "2d"), tmp_path / "fork.pth")
    import_released([tmp_path / "fork.pth"], tmp_path / "model")
    load_pretrained_weights(fresh, str(tmp_path / "model" / "fold_0" / "checkpoint_final.pth"))
    torch.testing.assert_close(fresh.state_dict(), trained.state_dict())


def test_folds_are_averaged_and_mirrored(tmp_path):
    """Two folds in one folder; mirroring as the checkpoint allows."""
    networks = [network_of(configuration="2d"), network_of(configuration="2d")]
    with torch.no_grad():
        networks[1].conv_final[2][1].conv.bias.add_(torch.tensor([0.0, 5.0, 0.0]))
    sources = []
    for fold, network in zip((1, "all"), networks):
        sources.append(tmp_path / f"{fold}.pth")
        torch.save(fork_checkpoint(network.state_dict(), "2d", fold), sources[-1])
    import_released(sources, tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").glob("[!.]*")} == {
        "plans.json",
        "dataset.json",
        "fold_1",
        "fold_all",
    }
    image = random_image("2d")
    results = {
        folds: predicted_probabilities(tmp_path / "model", image, folds)[1] for folds in ((1,), ("all",), (1, "all"))
    }
    mean = np.sqrt(results[1,] * results["all",])  # of logits
    np.testing.assert_allclose(results[1, "all"], mean / mean.sum(0), atol=5e-3)
    mirrored = predicted_probabilities(tmp_path / "model", image, (1,), mirroring=True)[1]
    assert np.abs(mirrored - results[1,]).max() > 1e-3


def test_the_folder_holds_what_was_in_the_checkpoint(tmp_path, source):
    import_released([source(fold=3)], tmp_path / "sub" / "model")
    folder = tmp_path / "sub" / "model"
    assert [path.name for path in folder.parent.iterdir()] == ["model"], "no working folder is left"
    assert json.loads((folder / "dataset.json").read_text()) == DATASET_JSON
    plans, old = json.loads((folder / "plans.json").read_text()), old_plans()
    converted = plans["configurations"].pop("3d_fullres")
    assert converted["architecture"]["arch_kwargs"]["strides"] == [[1] * 3, [2] * 3, [2] * 3]
    assert converted["patch_size"] == old["configurations"].pop("3d_fullres")["patch_size"]
    assert plans == old
    checkpoint = torch.load(folder / "fold_3" / "checkpoint_final.pth", weights_only=True)
    assert checkpoint["trainer_name"] == HEAD
    assert checkpoint["init_args"].keys() == {"plans", "configuration", "fold", "dataset_json"}
    assert checkpoint["inference_allowed_mirroring_axes"] == (0, 1, 2)


@pytest.mark.parametrize(
    "prefixes", [["module."], ["_orig_mod."], ["module.", "_orig_mod."], ["_orig_mod.", "module."]]
)
def test_wrapped_networks(tmp_path, source, empty_weights, prefixes):
    wrapped = {"".join(prefixes) + name: tensor for name, tensor in empty_weights.items()}
    (imported,) = import_released([source(weights=wrapped)], tmp_path / "model")
    assert imported.weights.keys() == empty_weights.keys()


@pytest.mark.parametrize("configuration", ["3d_cascade_fullres", "3d_small_batch"])
def test_a_configuration_that_inherits(tmp_path, source, configuration):
    weights = without_values(network_of(configuration=configuration))
    (imported,) = import_released([source(weights=weights, configuration=configuration)], tmp_path / "model")
    converted = imported.plans["configurations"][configuration]
    assert "inherits_from" not in converted and converted["patch_size"] == [16, 16, 16]
    assert converted["batch_size"] == (1 if configuration == "3d_small_batch" else 2)
    predictor = nnUNetPredictor(device=torch.device("cpu"))
    predictor.initialize_from_trained_model_folder(str(tmp_path / "model"), use_folds=(0,))


def test_a_variant_of_the_forks_trainer(tmp_path, source):
    (imported,) = import_released([source(trainer_name="nnUNetTrainerLightMUNet_50epochs")], tmp_path / "model")
    assert imported.trainer.__name__ == HEAD


def paper_weights():
    return without_values(LightMUNet(1, 3, spatial_dims=3))


def changed(empty_weights, name, value):
    weights = dict(empty_weights)
    if value is None:
        del weights[name]
    else:
        weights[name] = value
    return weights


BIAS = "conv_final.2.1.conv.bias"
REFUSED = {
    "stock_trainer": (
        {"trainer_name": "nnUNetTrainer", "weights": {"encoder.stages.0.weight": torch.zeros(1)}},
        "was trained with nnUNetTrainer; expected the fork's nnUNetTrainerLightMUNet",
    ),
    "another_fork": ({"trainer_name": "nnUNetTrainerSwinUMamba"}, "was trained with nnUNetTrainerSwinUMamba; expected"),
    "ours": ({"trainer_name": f"{HEAD}_5epochs"}, f"this package's {HEAD}_5epochs; there is nothing to import"),
    "ours_of_the_same_name": (
        {"weights": paper_weights()},
        "this package's nnUNetTrainerLightMUNet; there is nothing to import",
    ),
    "another_network": (
        {"weights": {"a.weight": torch.zeros(2), "b": torch.zeros(1)}},
        r"its network is not the released LightM-UNet: expected the parameter convInit\.0\.conv\.weight .* a\.weight",
    ),
    "no_parameters": ({"weights": {"convInit.0.conv.weight": torch.zeros(1)}}, r"is missing; .*; and \d+ more"),
    "missing": (
        {"change": (BIAS, None)},
        rf"is not the released LightM-UNet for its plans and dataset_json: {BIAS} is missing$",
    ),
    "unknown": ({"change": ("extra.bias", torch.zeros(1))}, "extra.bias is unknown$"),
    "shape": ({"change": (BIAS, torch.zeros(5))}, rf"{BIAS} is \(5,\), expected \(3,\)$"),
    "not_finite": ({"change": (BIAS, torch.tensor([0, float("nan"), 0]))}, f"1 parameters are not finite, e.g. {BIAS}"),
    "integers": ({"change": (BIAS, torch.zeros(3, dtype=torch.int64))}, f"{BIAS} is torch.int64"),
    "sparse": ({"change": (BIAS, torch.zeros(3).to_sparse())}, f"{BIAS} is torch.float32, torch.sparse_coo"),
    "meta": ({"change": (BIAS, torch.zeros(3, device="meta"))}, f"{BIAS} is .*, on meta"),
    "no_tensor": ({"change": (BIAS, 3)}, f"network_weights has '{BIAS}', a int; expected tensors"),
    "number_for_a_name": ({"change": (3, torch.zeros(1))}, "network_weights has 3, a Tensor"),
    "twice": ({"change": (f"module.{BIAS}", torch.zeros(3))}, f"network_weights has {BIAS} twice"),
    "weights_are_a_list": ({"network_weights": []}, "network_weights is a list, which no nnU-Net checkpoint has"),
    "trainer_is_a_number": ({"trainer_name": 1}, "trainer_name is a int"),
    "fold_negative": ({"init_args": {"fold": -1}}, "fold is -1; expected a number from 0 or 'all'"),
    "fold_is_a_path": ({"init_args": {"fold": "../../x"}}, "fold is '../../x'; expected"),
    "fold_is_a_bool": ({"init_args": {"fold": True}}, "fold is True; expected"),
    "configuration": (
        {"init_args": {"configuration": "3d_highres"}},
        "cannot read its plans or dataset_json, configuration '3d_highres': RuntimeError.*3d_highres not found",
    ),
    "plans": ({"init_args": {"plans": {}}}, "cannot read its plans or dataset_json.*KeyError: 'configurations'"),
    "plans_with_a_tensor": (
        {"init_args": {"plans": {**old_plans(), "x": torch.zeros(1)}}},
        "cannot read its plans .*Object of type Tensor is not JSON serializable",
    ),
    "labels": ({"init_args": {"dataset_json": {"labels": {}, "channel_names": {"0": "CT"}}}}, "cannot read its plans"),
    "channels": (
        {"init_args": {"dataset_json": {**DATASET_JSON, "channel_names": {"0": "T1", "1": "T2"}}}},
        r"convInit.0.conv.weight is \(1, 1, 3, 3, 3\), expected \(2, 1, 3, 3, 3\)",
    ),
    "dimensions": ({"init_args": {"configuration": "2d"}}, r"is \(1, 1, 3, 3, 3\), expected \(1, 1, 3, 3\)"),
    "mirroring": ({"inference_allowed_mirroring_axes": (0, 3)}, r"mirroring_axes is \(0, 3\); expected None or"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path, source, empty_weights, case):
    arguments, message = deepcopy(REFUSED[case])
    if "change" in arguments:
        arguments["weights"] = changed(empty_weights, *arguments.pop("change"))
    path = source(**arguments)
    with pytest.raises(CheckpointError, match=message) as refused:
        import_released([path], tmp_path / "model")
    assert str(path) in str(refused.value)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name], "nothing is written"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "holds a Tensor; expected the dict of an nnU-Net checkpoint"),
        ({"a.weight": torch.zeros(1)}, "checkpoint lacks network_weights, trainer_name, init_args; it holds a.weight"),
        ({}, "it holds nothing"),
        (
            {"network_weights": {"convInit.conv.weight": torch.zeros(1)}, "trainer_name": "nnUNetTrainerLightMUNet",
             "init_args": {"plans": {}}},
            "its init_args lacks configuration, fold, dataset_json; it holds plans",
        ),
    ],
)  # fmt: skip
def test_no_checkpoint_of_nnunet(tmp_path, content, message):
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match=message):
        import_released([tmp_path / "c.pth"], tmp_path / "model")


def test_one_bad_checkpoint_among_good_ones_writes_nothing(tmp_path, source):
    sources = [source("0.pth", fold=0), source("1.pth", fold=1, trainer_name="nnUNetTrainer")]
    with pytest.raises(CheckpointError, match="1.pth: was trained with nnUNetTrainer"):
        import_released(sources, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fold": 0}, "both are of fold 0"),
        ({"init_args": {"dataset_json": {**DATASET_JSON, "numTraining": 5}}}, "differ in dataset_json"),
        ({"init_args": {"plans": {**old_plans(), "plans_name": "other"}}}, "differ in plans"),
        ({"configuration": "3d_lowres"}, "differ in configuration"),
        ({"weights": without_values(network_of("first"))}, "differ in trainer"),
    ],
    ids=["fold", "dataset_json", "plans", "configuration", "revision"],
)
def test_checkpoints_that_do_not_belong_together(tmp_path, source, change, message):
    sources = [source("a.pth", fold=0), source("b.pth", **{"fold": 1, **change})]
    with pytest.raises(CheckpointError, match=rf"a\.pth and .*b\.pth: {message}"):
        import_released(sources, tmp_path / "model")
    assert not (tmp_path / "model").exists()
