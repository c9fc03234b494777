"""``featuremap_similarity``: rows line up with the modules, a damaged layer is named, equal models have no distance."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_fx_fusion import FloatFunctional, fuse_fx
from bpu_kernels.march import March
from bpu_qat_nn import (
    ArgumentError,
    DeQuantStub,
    QuantStub,
    convert,
    convert_fx,
    fuse_modules,
    prepare_calibration,
)
from bpu_qat_nn.ops.weighted.layer import WeightedQAT
from bpu_qat_nn.profiler import SIMILARITIES, featuremap_similarity
from bpu_qat_nn.profiler.places import places
from bpu_qat_nn.testing import NETS, NetCase, calibrate, prepared, real_inputs
from bpu_qat_nn.testing.case import Between
from bpu_qat_nn.testing.classifiers import MobileNet, ResNet
from bpu_qconfig import FakeQuantState, default_qat_8bit_fake_quant_qconfig, set_fake_quantize

SHAPES = ((2, 3, 32, 32),)
X = real_inputs(SHAPES, 0)


def pair(net: type[nn.Module] = ResNet) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = net().eval()
    quantized = prepared(model, "bayes")
    calibrate(quantized, SHAPES, batches=1)
    return model, quantized


def called(model: Any) -> list[str]:
    return [str(node.target) for node in model.graph.nodes if node.op == "call_module"]


@pytest.mark.parametrize("net", [ResNet, MobileNet])
def test_rows_of_float_and_qat_line_up_with_the_operators_one_to_one(net: type[nn.Module]) -> None:
    model, quantized = pair(net)
    found = featuremap_similarity(model, quantized, X)

    operators = [path for path, _ in places(quantized)]
    rows = [row.name.removesuffix("(I vs I)") for row in found if row.type not in ("flatten", "mean")]
    assert sorted(rows) == sorted(path for path in operators if path in {*called(quantized), *generated(quantized)})
    assert found.unpaired == ()
    assert [row.position for row in found] == list(range(len(found)))


def generated(model: Any) -> list[str]:
    return [str(node.target) for node in model.graph.nodes if node.op == "get_attr"]


def test_float_model_that_is_fused_already_gives_the_same_rows() -> None:
    model, quantized = pair()

    unfused, fused = (featuremap_similarity(each, quantized, X) for each in (model, fuse_fx(model)))
    assert [row.name for row in fused] == [row.name for row in unfused]
    assert max(abs(a.max_error - b.max_error) for a, b in zip(fused, unfused, strict=True)) < 1e-5


@pytest.mark.parametrize("path", ["stem.0", "blocks.1.body.0", "blocks_2_generated_add_0", "fc"])
def test_layer_whose_weights_were_damaged_is_named_first(path: str) -> None:
    model, quantized = pair()
    layer = quantized.get_submodule(path)
    with torch.no_grad():
        layer.weight.view(-1)[::3] = 0.0

    found = featuremap_similarity(model, quantized, X)
    assert found.by_operator_error[0].name == path


@pytest.mark.parametrize("case", NETS.values(), ids=NETS)
def test_validation_and_converted_model_do_not_differ_anywhere(case: NetCase) -> None:
    march = case.marches[-1] if case.marches else March.BAYES
    model = prepared(case.model(), march)
    calibrate(model, case.shapes)

    found = featuremap_similarity(model, convert_fx(model), real_inputs(case.shapes, 5), "L1", 0.0)
    assert len(found) > 3
    assert {row.max_error for row in found} == {0.0}
    assert {row.error_in_scales for row in found} <= {0.0, None}
    assert {row.same_input_error_in_scales for row in found} <= {0.0, None}
    assert not any(map(found.is_bad, found))
    assert found.unpaired == ()


def test_without_rounding_calibration_and_float_differ_by_summation_only() -> None:
    model, quantized = pair()
    set_fake_quantize(quantized, FakeQuantState.CALIBRATION)
    for module in quantized.modules():
        if isinstance(module, WeightedQAT):
            module.weight_fake_quant.enable_fake_quant(False)

    assert max(row.max_error for row in featuremap_similarity(model, quantized, X)) < 1e-4


class Shared(nn.Module):
    """One layer and one activation, called twice each."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv, self.relu, self.same = nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        x = self.relu(self.conv(x))
        y: Tensor = self.dequant(self.same(self.relu(self.conv(x))))
        return y


def test_calls_of_a_shared_fused_layer_have_a_row_each() -> None:
    model, quantized = pair(Shared)
    found = featuremap_similarity(model, quantized, X)

    assert [row.name for row in found] == ["quant", "conv", "conv(1)", "same(I vs I)", "dequant"]
    assert [row.type for row in found[1:3]] == ["ConvReLU2d", "ConvReLU2d"]
    assert min(row.similarity for row in found) > 0.99


class Functions(nn.Module):
    """Functions that become modules, and some that stay."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant, self.conv = QuantStub(), DeQuantStub(), nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.conv(self.quant(x)).chunk(2, dim=1)
        y: Tensor = self.dequant(F.hardswish(torch.cat([a * b, a], dim=1)))
        return y


def test_functions_have_rows_and_same_input_errors_of_one_rounding() -> None:
    model, quantized = pair(Functions)
    found = {row.name: row for row in featuremap_similarity(model, quantized, X)}

    assert list(found)[2:] == [
        *("chunk", "_generated_mul_0", "_generated_cat_0", "_generated_hardswish_0", "dequant"),
    ]
    assert all(row.similarity > 0.99 for row in found.values())


def test_parts_of_an_operator_that_has_a_row_need_none_in_float() -> None:
    model = Between(nn.LayerNorm([8, 8])).eval()
    quantized = prepared(model, "bayes")
    calibrate(quantized, ((2, 3, 8, 8),))
    x = real_inputs(((2, 3, 8, 8),), 1)

    found = featuremap_similarity(model, quantized, x)
    assert [row.name for row in found] == ["quant", "body", "dequant"]
    assert found.unpaired == ()
    parts = [row.name for row in featuremap_similarity(quantized, convert_fx(quantized), x)]
    assert [name for name in parts if name.startswith("body.")]


class EagerNet(nn.Module):
    """Modules and methods only."""

    qconfig = default_qat_8bit_fake_quant_qconfig

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv, self.bn, self.add = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        y: Tensor = self.dequant(self.add.add(self.bn(self.conv(x)), x))
        return y


def test_eager_models_are_compared_with_the_fused_float_model() -> None:
    fused = fuse_modules(EagerNet().eval(), ["conv", "bn", "add"])
    quantized = prepare_calibration(fused)
    quantized(*X)
    set_fake_quantize(quantized, FakeQuantState.VALIDATION)

    found = featuremap_similarity(fused, quantized, X)
    assert [row.name for row in found] == ["quant", "conv(I vs I)", "bn(I vs I)", "add", "dequant"]
    assert found[3].type == "ConvAdd2d"
    assert found[3].similarity > 0.99
    unfused = featuremap_similarity(EagerNet().eval(), quantized, X)
    assert unfused.unpaired == (("add", "it is fused in one model only; fuse both in the same way"),)
    assert {row.error_in_scales for row in featuremap_similarity(quantized, convert(quantized), X)} == {0.0, None}


def test_files_are_written_and_read_as_they_print(tmp_path: Path) -> None:
    model, quantized = pair()
    found = featuremap_similarity(model, quantized, X, threshold=0.9999, out_dir=str(tmp_path / "new"))

    written = {path.name: path.read_text() for path in (tmp_path / "new").iterdir()}
    assert set(written) == {"similarity.txt", "ordered_op_error_similarity.txt", "similarity.html"}
    assert written["similarity.txt"] == f"{found}\n"
    assert written["ordered_op_error_similarity.txt"] == f"{found.by_operator_error}\n"
    assert written["similarity.html"].count("<rect") == 2 * len(found) - 1  # the real output has no scale
    assert written["similarity.html"].count('<rect class="marked"') == sum(map(found.is_bad, found)) > 0


def test_unknown_measure_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ArgumentError, match=r"'Cosine', 'MSE', 'L1', 'KL', 'SQNR'.*'cosine'"):
        featuremap_similarity(nn.ReLU(), nn.ReLU(), X, "cosine")


def test_function_of_the_user_measures() -> None:
    found = featuremap_similarity(nn.ReLU(), nn.ReLU(), X, lambda x, y: 3.0, threshold=2.0)

    assert [row.similarity for row in found] == [3.0]
    assert found.is_bad(found[0])


ZERO, ONES, TWOS = torch.zeros(2, 2), torch.ones(2, 2), torch.full((2, 2), 2.0)

MEASURED = {
    "cosine of parallel": ("Cosine", ONES, TWOS, 1.0),
    "cosine of opposite": ("Cosine", ONES, -TWOS, -1.0),
    "cosine of zeros": ("Cosine", ZERO, ZERO, 1.0),
    "cosine of zeros and others": ("Cosine", ZERO, ONES, 0.0),
    "mse": ("MSE", ONES, ONES * 4, 9.0),
    "l1": ("L1", ONES, ONES * 4, 3.0),
    "kl of equal": ("KL", ONES, ONES, 0.0),
    "kl": ("KL", torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3.0)]]), 0.5 * math.log(4 / 3)),
    "sqnr": ("SQNR", ONES * 10, ONES * 9, 20.0),
    "sqnr of equal": ("SQNR", ONES, ONES, math.inf),
}


@pytest.mark.parametrize(("name", "x", "y", "value"), MEASURED.values(), ids=MEASURED)
def test_measures(name: str, x: Tensor, y: Tensor, value: float) -> None:
    assert SIMILARITIES[name].of(x, y) == pytest.approx(value, abs=1e-7)
