"""On a GPU every stage gives the integers that it gives on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bpu_kernels.march import March
from bpu_qat_nn import convert_fx
from bpu_qat_nn.testing import CASES, NETS, calibrate, prepared, real_inputs, validate
from bpu_qconfig import FakeQuantState, march_scope, set_fake_quantize

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

OPERATORS = [(name, case.marches[-1], bits) for name, case in CASES.items() for bits in case.bits]


def outputs(found: object) -> list[Tensor]:
    """Return the tensors of a model's result."""
    several: Any = found if isinstance(found, (tuple, list)) else [found]
    return [y.detach().cpu() for y in several]


def assert_same_on_gpu(model: torch.nn.Module, shapes: tuple[tuple[int, ...], ...], march: March, bits: int) -> None:
    observed = prepared(model, march, bits)
    calibrate(observed, shapes)
    inputs = real_inputs(shapes, 7)
    validate(observed)
    with march_scope(march):
        converted = convert_fx(observed)
    expected = outputs(converted(*inputs))
    on_gpu = [x.cuda() for x in inputs]
    for stage in (observed.cuda(), converted.cuda()):
        for got, wanted in zip(outputs(stage(*on_gpu)), expected, strict=True):
            assert torch.equal(got, wanted)


@pytest.mark.parametrize(("name", "march", "bits"), OPERATORS)
def test_operator(name: str, march: March, bits: int) -> None:
    case = CASES[name]
    assert_same_on_gpu(case.model(), case.shapes, march, bits)


@pytest.mark.parametrize("name", NETS)
def test_net(name: str) -> None:
    case = NETS[name]
    assert_same_on_gpu(case.model(), case.shapes, case.marches[-1], 8)


def test_model_trained_on_the_gpu_is_converted_exactly() -> None:
    case = NETS["resnet"]
    observed = prepared(case.model(), March.BAYES).cuda()
    inputs = [x.cuda() for x in real_inputs(case.shapes, 7)]
    observed.eval()
    set_fake_quantize(observed, FakeQuantState.CALIBRATION)
    observed(*inputs)
    observed.train()
    set_fake_quantize(observed, FakeQuantState.QAT)
    optimizer = torch.optim.SGD(observed.parameters(), 1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        observed(*inputs).square().mean().backward()
        optimizer.step()
    validate(observed)
    with march_scope(March.BAYES):
        converted = convert_fx(observed)
    assert torch.equal(observed(*inputs), converted(*inputs))
