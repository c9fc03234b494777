"""The promise, continued: the Program, on numpy and on the engine, gives the integers of the converted model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import bpu_kernels
from bpu_deploy_tools import lower, torch_outputs
from bpu_deploy_tools.lowering.layout import channels_last
from bpu_kernels.march import March
from bpu_qat_nn import ObservedGraphModule, convert_fx
from bpu_qat_nn.testing import CASES, NETS, calibrate, differing, prepared, real_inputs, train_steps
from bpu_qconfig import default_qat_out_8bit_fake_quant_qconfig, march_scope

OPERATORS = [
    pytest.param(name, march, bits, id=f"{name}-{march}-{bits}")
    for name, case in CASES.items()
    for march in case.marches
    for bits in case.bits
    if bits == 8 or march is not March.BERNOULLI2
]
WHOLE_NETS = [pytest.param(name, march, id=f"{name}-{march}") for name, case in NETS.items() for march in case.marches]


def stored(inputs: tuple[Tensor, ...], program: bpu_kernels.Program) -> dict[str, Any]:
    """Bring real inputs to a Program's layout."""
    pairs = zip(program.inputs, inputs, strict=True)
    return {each.name: np.ascontiguousarray(x.permute(channels_last(x.dim())).numpy()) for each, x in pairs}


def assert_program_equals_model(model: ObservedGraphModule, march: March, shapes: tuple[tuple[int, ...], ...]) -> None:
    """Lower, save, load, run on numpy and on the engine; compare with the converted model, which validation equals."""
    inputs = real_inputs(shapes, seed=11)
    with march_scope(march):
        converted = convert_fx(model)
    program = bpu_kernels.loads(bpu_kernels.saves(lower(converted, inputs)))
    assert program.march is march
    with torch.no_grad():
        expected = converted(*inputs)
        assert differing(model(*inputs), expected) == 0
    given = bpu_kernels.quantize_inputs(program, stored(inputs, program))
    for backend in ("numpy", "auto"):
        integers = bpu_kernels.run(program, given, backend=backend)
        assert differing(list(torch_outputs(program, integers).values()), expected) == 0, backend


@pytest.mark.parametrize(("name", "march", "bits"), OPERATORS)
def test_program_equals_converted_for_operator(name: str, march: March, bits: int) -> None:
    case = CASES[name]
    model = prepared(case.model(), march, bits)
    calibrate(model, case.shapes)
    train_steps(model, case.shapes)
    assert_program_equals_model(model, march, case.shapes)


@pytest.mark.parametrize(("name", "march"), WHOLE_NETS)
def test_program_equals_converted_for_net(name: str, march: March) -> None:
    case = NETS[name]
    wide = [(path, default_qat_out_8bit_fake_quant_qconfig) for path in case.high_precision]
    model = prepared(case.model(), march, module_name=wide)
    calibrate(model, case.shapes)
    assert_program_equals_model(model, march, case.shapes)
    train_steps(model, case.shapes, steps=3, lr=1e-2)
    assert_program_equals_model(model, march, case.shapes)
