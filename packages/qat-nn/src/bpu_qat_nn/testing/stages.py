"""From a float model to calibrated, trained and converted ones, on seeded inputs with extremes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bpu_kernels.march import March
from bpu_qat_nn.convert import convert_fx
from bpu_qat_nn.graph_module import ObservedGraphModule, QuantizedGraphModule
from bpu_qat_nn.preparation.prepare import prepare_qat_fx
from bpu_qat_nn.qtensor import QTensor
from bpu_qconfig import (
    FakeQuantState,
    default_qat_8bit_fake_quant_qconfig,
    default_qat_8bit_weight_16bit_act_fake_quant_qconfig,
    march_scope,
    set_fake_quantize,
)

__all__ = ["assert_exact", "calibrate", "differing", "prepared", "real_inputs", "train_steps", "validate"]

QCONFIGS = {8: default_qat_8bit_fake_quant_qconfig, 16: default_qat_8bit_weight_16bit_act_fake_quant_qconfig}
"""Bits of activations -> qconfig."""


def real_inputs(shapes: Sequence[Sequence[int]], seed: int, spread: float = 1.0) -> tuple[Tensor, ...]:
    """Return normally distributed tensors with a few values far outside, so that saturation happens."""
    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for shape in shapes:
        x = torch.randn(tuple(shape), generator=generator) * spread
        far = torch.rand(tuple(shape), generator=generator) < 0.002
        tensors.append(torch.where(far, x * 8, x))
    return tuple(tensors)


def prepared(model: nn.Module, march: March | str, bits: int = 8, **entries: Any) -> ObservedGraphModule:
    """Prepare with the default QAT qconfig of so many bits; ``entries`` join the qconfig_dict."""
    with march_scope(march):
        return prepare_qat_fx(model, {"": QCONFIGS[bits], **entries})


def calibrate(model: ObservedGraphModule, shapes: Sequence[Sequence[int]], batches: int = 3) -> None:
    """Run calibration batches; the model is left in VALIDATION state."""
    model.eval()
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    with torch.no_grad():
        for seed in range(batches):
            model(*real_inputs(shapes, seed))
    validate(model)


def train_steps(model: ObservedGraphModule, shapes: Sequence[Sequence[int]], steps: int = 2, lr: float = 1e-3) -> None:
    """Take a few steps of SGD towards zero outputs in QAT state; the model is left in VALIDATION state."""
    model.train()
    set_fake_quantize(model, FakeQuantState.QAT)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=lr) if trained else None
    for seed in range(100, 100 + steps):
        loss = sum((output.square().mean() for output in flat(model(*real_inputs(shapes, seed)))), torch.tensor(0.0))
        if optimizer is not None and loss.requires_grad:
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    validate(model)


def validate(model: ObservedGraphModule) -> None:
    """Put a model into VALIDATION state."""
    model.eval()
    set_fake_quantize(model, FakeQuantState.VALIDATION)


def assert_exact(model: ObservedGraphModule, inputs: Sequence[Any]) -> QuantizedGraphModule:
    """Assert that a model in VALIDATION state gives the integers of its converted form, gradients recorded or not.

    The converted form is called three times: called again, it may run as one call of the engine.

    Returns:
        The converted model.
    """
    converted = convert_fx(model)
    with torch.no_grad():
        expected = model(*inputs)
        for _ in range(3):
            assert differing(expected, converted(*inputs)) == 0
    assert differing(model(*inputs), expected) == 0
    return converted


def flat(outputs: Any) -> list[Tensor]:
    """Return the tensors of a model's result."""
    if isinstance(outputs, Tensor):
        return [outputs]
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return [tensor for value in values for tensor in flat(value)]


def differing(first: Any, second: Any) -> int:
    """Return the number of elements in which two results differ; their shapes, types and scales must agree."""
    pairs = zip(flat(first), flat(second), strict=True)
    count = 0
    for a, b in pairs:
        assert a.shape == b.shape, (a.shape, b.shape)
        if isinstance(a, QTensor) and isinstance(b, QTensor):
            assert a.dtype is b.dtype, (a.dtype, b.dtype)
            assert torch.equal(a.scale, b.scale), (a.scale, b.scale)
            a, b = a.int_repr(), b.int_repr()
        count += int((a != b).sum())
    return count
