"""Raw features, their statistics, types and devices: what they say of a model is what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bpu_qat_nn import ArgumentError, DeQuantStub, QTensor, QuantStub, convert_fx, prepare_qat_fx
from bpu_qat_nn.profiler import (
    check_deploy_device,
    check_qconfig,
    get_raw_features,
    model_profiler,
    profile_featuremap,
    record,
)
from bpu_qat_nn.testing import calibrate, prepared, real_inputs
from bpu_qat_nn.testing.classifiers import MobileNet, ResNet
from bpu_qconfig import (
    default_qat_8bit_fake_quant_qconfig,
    default_qat_8bit_weight_16bit_act_fake_quant_qconfig,
    default_qat_8bit_weight_32bit_out_fake_quant_qconfig,
)

SHAPES = ((2, 3, 32, 32),)
X = real_inputs(SHAPES, 0)


class Net(nn.Module):
    """A fixed scale, an addition, an Identity, a high-precision head."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(scale=1 / 32), DeQuantStub()
        self.conv, self.same, self.head = nn.Conv2d(3, 3, 1), nn.Identity(), nn.Conv2d(3, 4, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        y: Tensor = self.dequant(self.head(self.same(torch.relu(x) + self.conv(x).tanh())))
        return y


def qat(**entries: Any) -> Any:
    head = {"module_name": {"head": default_qat_8bit_weight_32bit_out_fake_quant_qconfig}}
    model = prepare_qat_fx(Net().eval(), {"": default_qat_8bit_fake_quant_qconfig, **head, **entries})
    calibrate(model, SHAPES, batches=1)
    return model


def test_features_are_inputs_outputs_and_parameters_in_order() -> None:
    found = [(each["module_name"], each["attr"]) for each in get_raw_features(qat(), X)]

    assert found == [
        *(("quant", "input"), ("quant", "output")),
        *(("_generated_relu_0", "input"), ("_generated_relu_0", "output")),
        *(("conv", "input"), ("conv", "output"), ("conv", "weight"), ("conv", "bias")),
        *(("_generated_tanh_0", "input"), ("_generated_tanh_0", "output")),
        *(("_generated_add_0", "input-0"), ("_generated_add_0", "input-1"), ("_generated_add_0", "output")),
        *(("same", "input"), ("same", "output")),
        *(("head", "input"), ("head", "output"), ("head", "weight")),
        *(("dequant", "input"), ("dequant", "output")),
    ]


def test_features_have_the_documented_keys_and_the_recorded_values() -> None:
    model = qat()
    by_name = {(each["module_name"], each["attr"]): each for each in get_raw_features(model, X, preserve_int=True)}
    call = record(model, X).call("head")
    assert call is not None

    head = by_name["head", "output"]
    assert list(head)[:6] == ["module_name", "attr", "data", "scale", "ch_axis", "ff_method"]
    assert isinstance(call.result, QTensor)
    assert torch.equal(head["data"], call.result.int_repr())
    assert head["ch_axis"] == 1
    assert head["scale"] is not None
    assert torch.equal(head["scale"], call.result.scale)
    assert by_name["_generated_add_0", "output"]["ff_method"] == "add"
    assert by_name["quant", "input"]["scale"] is None
    assert by_name["conv", "weight"]["ch_axis"] == 0


CHOICES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "path": ({"prefixes": ("conv", "head")}, {"conv", "head"}),
    "class": ({"types": (nn.Identity,)}, {"same"}),
    "path or class": ({"types": (nn.Identity,), "prefixes": ("quant",)}, {"same", "quant"}),
    "no identity": ({"types": (nn.Identity,), "skip_identity": True}, set()),
    "by class": ({"prefixes": ("conv",), "use_class_name": True}, {"Conv2d"}),
}


@pytest.mark.parametrize(("options", "names"), CHOICES.values(), ids=CHOICES)
def test_places_are_chosen_by_path_and_exact_class(options: dict[str, Any], names: set[str]) -> None:
    assert {each["module_name"] for each in get_raw_features(qat(), X, **options)} == names


@pytest.mark.parametrize("preserve_int", [False, True])
@pytest.mark.parametrize("converted", [False, True])
def test_statistics_are_those_of_the_real_values(converted: bool, preserve_int: bool) -> None:
    model = qat()
    model = convert_fx(model) if converted else model
    rows = {
        (row.name, row.attr): row for row in profile_featuremap(get_raw_features(model, X, preserve_int=preserve_int))
    }
    for call in record(model, X).calls:
        result = call.result
        real = (result.dequantize() if isinstance(result, QTensor) else result).double()
        row = rows[call.label, "output"]
        expected = (real.min(), real.max(), real.mean(), real.var(correction=0))
        assert [row.min, row.max, row.mean, row.var] == pytest.approx([float(each) for each in expected], rel=1e-6)
        assert row.dtype == str(result.dtype)


def test_share_that_is_cut_off_counts_both_ends() -> None:
    model = qat()
    x = torch.zeros(1, 3, 10, 10)
    x[0, 0, 0, 0], x[0, 1, 1, 1], x[0, 2, 2, 2] = 100.0, -100.0, 3.0  # the range of the stub is -4 to 3.97

    rows = {(row.name, row.attr): row for row in profile_featuremap(get_raw_features(model, x))}
    assert rows["quant", "output"].cut_off == pytest.approx(2 / 300)
    assert rows["quant", "input"].cut_off is None


def test_statistics_print_in_order_and_by_range_and_are_written(tmp_path: Path) -> None:
    features = get_raw_features(qat(), X)
    found = profile_featuremap(features, out_dir=str(tmp_path), file_name="mine", show_per_channel=True)

    text = (tmp_path / "mine.txt").read_text()
    assert text == f"{found}\n"
    assert [row.position for row in found] == sorted(row.position for row in found)
    ranges = [row.range for row in found.by_range]
    assert ranges == sorted(ranges, reverse=True)
    assert text.index("In order of execution") < text.index("By descending range")
    page = (tmp_path / "mine.html").read_text()
    assert page.count("<figure>") == 2 + len(features)


def test_scales_of_all_channels_are_printed_on_demand() -> None:
    features = get_raw_features(qat(), X, prefixes=("head",))
    scale = next(each["scale"] for each in features if each["attr"] == "weight")
    assert scale is not None

    assert "(largest of 4)" in str(profile_featuremap(features))
    every = str(profile_featuremap(features, print_per_channel_scale=True))
    assert " ".join(f"{each:.6g}" for each in scale.tolist()) in every


def test_tensorboard_that_is_not_installed_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bpu_qat_nn.profiler.histograms.find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match="pip install tensorboard"):
        profile_featuremap([], with_tensorboard=True)


def test_qconfigs_are_told_and_what_may_not_be_meant(tmp_path: Path) -> None:
    wide = {"module_name": {"_generated_add_0": default_qat_8bit_weight_16bit_act_fake_quant_qconfig}}
    info = check_qconfig(qat(**wide), X, out_dir=str(tmp_path))

    assert ("conv", "Conv2d", "qint8", "qint8", "-1") in info.layers
    assert ("_generated_add_0", "FloatFunctional", "qint8, qint8", "qint16", "-1") in info.layers
    assert ("conv", "Conv2d", "qint8", "0") in info.weights
    assert ("quant", "QuantStub", "Fixed scale [0.03125]") in info.messages
    assert (
        "_generated_add_0",
        "FloatFunctional",
        "input dtype qint8 is not same with out dtype qint16",
    ) in info.messages
    text = (tmp_path / "qconfig_info.txt").read_text()
    assert text == f"{info}\n"
    assert "Please check if these OPs qconfigs are expected.." in text


def test_output_in_high_precision_is_told() -> None:
    info = check_qconfig(qat(), X, prefixes=("head",))

    assert info.messages == (("head", "Conv2d", "output not quantized"),)
    assert info.layers == (("head", "Conv2d", "qint8", "qint32", "1"),)


def test_user_checks_as_forward_hooks_do() -> None:
    seen: list[tuple[str, tuple[int, ...]]] = []

    def check(module: nn.Module, inputs: Any, output: Any) -> str | None:
        seen.append((type(module).__name__, tuple(inputs[0].shape)))
        return "wide" if output.shape[1] > 3 else None

    info = check_qconfig(qat(), X, prefixes=("conv", "head"), custom_check_func=check)
    assert seen == [("QATConv2d", (2, 3, 32, 32)), ("QATConv2d", (2, 3, 32, 32))]
    assert ("head", "Conv2d", "wide") in info.messages


def test_float_model_has_no_qconfigs_and_no_device() -> None:
    with pytest.raises(ArgumentError, match="expected a model that prepare_qat_fx"):
        check_qconfig(Net(), X)
    with pytest.raises(ArgumentError, match="in a float model nothing is quantized"):
        check_deploy_device(Net())


class Hybrid(nn.Module):
    """A function that has no integer form, between convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv, self.head, self.flat = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 4, 1), nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dequant(self.flat(self.head(torch.cumsum(self.conv(self.quant(x)), dim=1) + 1)))
        return y


def test_devices_of_a_hybrid_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = prepare_qat_fx(Hybrid().eval(), {"": default_qat_8bit_fake_quant_qconfig}, hybrid=True)
    calibrate(model, SHAPES, batches=1)

    for each in (model, convert_fx(model)):
        found = check_deploy_device(each, out_dir=str(tmp_path))
        on_bpu = [name for name, (device, _) in found.items() if device == "BPU"]
        assert on_bpu == ["conv", "_generated_add_scalar_0", "head", "flat"]
        assert found["cumsum"] == ("CPU", "cumsum")
        assert capsys.readouterr().out == (tmp_path / "deploy_device.txt").read_text()


@pytest.mark.parametrize("net", [ResNet, MobileNet])
def test_profile_of_all_tools_lies_in_one_folder_and_prints_the_worst_first(
    net: type[nn.Module], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = net().eval()
    quantized: Any = prepared(model, "bayes")
    calibrate(quantized, SHAPES)
    with torch.no_grad():
        quantized.get_submodule("blocks.1.body.0").weight.view(-1)[::2] = 0.0
    profile = model_profiler(model, quantized, X, "FvsQ", str(tmp_path))

    assert profile.worst[0].name == "blocks.1.body.0"
    assert capsys.readouterr().out.splitlines()[3].split()[1] == "blocks.1.body.0"
    assert {path.name for path in tmp_path.iterdir()} == {
        *("similarity.txt", "ordered_op_error_similarity.txt", "similarity.html", "profiler.html"),
        *("model1_statistic.txt", "model1_statistic.html", "model2_statistic.txt", "model2_statistic.html"),
        *("weight_comparison.txt", "qconfig_info.txt", "deploy_device.txt"),
    }
    assert profile.weights is not None
    assert profile.unfused
    assert "blocks.1.body.0" in (tmp_path / "profiler.html").read_text()


def test_profile_of_equal_models_says_so(tmp_path: Path) -> None:
    quantized = qat()
    profile = model_profiler(quantized, convert_fx(quantized), X, "QvsQ", str(tmp_path))

    assert str(profile).startswith(f"The results are equal at all {len(profile.similarity)} places.")
    assert profile.weights is None


def test_profile_refuses_what_is_not_meant_before_anything_runs(tmp_path: Path) -> None:
    quantized = qat()
    with pytest.raises(ArgumentError, match=r"'FvsQ', 'QvsQ', 'CvsQ'.*'FvsF'"):
        model_profiler(Net(), quantized, X, "FvsF", str(tmp_path))
    with pytest.raises(ArgumentError, match="QvsQ expects model2 to be converted"):
        model_profiler(quantized, Net(), X, "QvsQ", str(tmp_path))
    with pytest.raises(ArgumentError, match="kwargs_dict"):
        model_profiler(quantized, quantized, X, "CvsQ", str(tmp_path), {"similarity": {}})
    assert not list(tmp_path.iterdir())


def test_arguments_reach_the_tools_by_their_names(tmp_path: Path) -> None:
    quantized = qat()
    profile = model_profiler(
        quantized, quantized, X, "CvsQ", str(tmp_path), {"featuremap_similarity": {"similarity_func": "L1"}}
    )
    assert profile.similarity.measure.name == "L1"
