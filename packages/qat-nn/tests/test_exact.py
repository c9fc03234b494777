"""The promise: a QAT model in VALIDATION state and its converted form give the same integers, element by element."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from bpu_kernels.march import March, march_row
from bpu_qat_nn import OPS, QATMode, qat_mode_scope
from bpu_qat_nn.testing import CASES, NETS, assert_exact, calibrate, prepared, real_inputs, train_steps
from bpu_qconfig import FakeQuantState, default_qat_out_8bit_fake_quant_qconfig, set_fake_quantize

# BAYES_E repeats the row of BAYES (tested below), so its operators would repeat the same tests; the nets cover it.
OPERATORS = [
    pytest.param(name, march, bits, id=f"{name}-{march}-{bits}")
    for name, case in CASES.items()
    for march in case.marches
    for bits in case.bits
    if march is not March.BAYES_E and (bits == 8 or march is not March.BERNOULLI2)
]
WHOLE_NETS = [
    pytest.param(name, march, mode, id=f"{name}-{march}-{mode.value}")
    for name, case in NETS.items()
    for march in case.marches
    for mode in (QATMode.FuseBN, QATMode.WithBN)
]


def test_marches_bayes_and_bayes_e_have_the_same_row_but_for_their_names() -> None:
    bayes, bayes_e = march_row("bayes"), march_row("bayes-e")
    assert dataclasses.replace(bayes_e, march=bayes.march, boards=bayes.boards) == bayes


@pytest.mark.parametrize(("name", "march", "bits"), OPERATORS)
def test_validation_equals_converted_for_operator(name: str, march: March, bits: int) -> None:
    case = CASES[name]
    model = prepared(case.model(), march, bits)
    calibrate(model, case.shapes)
    assert_exact(model, real_inputs(case.shapes, seed=7))
    train_steps(model, case.shapes)
    assert_exact(model, real_inputs(case.shapes, seed=8))


@pytest.mark.parametrize("name", CASES)
def test_calibration_computes_the_float_model(name: str) -> None:
    case = CASES[name]
    model = case.model()
    march = March.BAYES if March.BAYES in case.marches else case.marches[0]
    observed = prepared(model, march).eval()
    set_fake_quantize(observed, FakeQuantState.CALIBRATION)
    inputs = real_inputs(case.shapes, seed=7)
    with torch.no_grad():
        torch.testing.assert_close(observed(*inputs), model(*inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "march", "mode"), WHOLE_NETS)
def test_validation_equals_converted_for_net(name: str, march: March, mode: QATMode) -> None:
    case = NETS[name]
    wide = [(path, default_qat_out_8bit_fake_quant_qconfig) for path in case.high_precision]
    with qat_mode_scope(mode):
        model = prepared(case.model(), march, module_name=wide)
    calibrate(model, case.shapes)
    assert_exact(model, real_inputs(case.shapes, seed=7))
    train_steps(model, case.shapes, steps=3, lr=1e-2)
    assert_exact(model, real_inputs(case.shapes, seed=8))


def test_every_float_module_of_the_table_has_a_case() -> None:
    from bpu_fx_fusion import fuse_fx

    seen = set()
    for case in CASES.values():
        for absorb in (True, False):
            seen |= {type(module) for module in fuse_fx(case.model(), absorb_batch_norm=absorb).modules()}
    variants = {"DeQuantStub", "QuantStub", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FoldedLinear"}
    variants |= {"UpsamplingNearest2d", "UpsamplingBilinear2d"}
    missing = {kind.__name__ for kind in OPS if kind not in seen} - variants
    # ReLU6 behind a kept BatchNorm without residual is covered by the nets.
    assert {name for name in missing if "BN" not in name and "ReLU" not in name} == set()
