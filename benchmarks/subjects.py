"""The stages of a network under quantization that are measured."""

from __future__ import annotations

import copy

import torch
from setting import Setting, network
from torch import Tensor, nn

from bpu_kernels.march import March
from bpu_qat_nn import DeQuantStub, ObservedGraphModule, QuantStub, prepare_qat_fx
from bpu_qconfig import FakeQuantState, QConfig, default_qat_8bit_fake_quant_qconfig, march_scope, set_fake_quantize

__all__ = ["calibrated", "float_network", "prepared"]


class Stubbed(nn.Module):
    """A network between stubs, as a user of prepare_qat_fx writes it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.quant, self.network, self.dequant = QuantStub(), network, DeQuantStub()

    def forward(self, x: Tensor) -> Tensor:
        """Quantize, compute, dequantize."""
        y: Tensor = self.dequant(self.network(self.quant(x)))
        return y


def float_network(setting: Setting) -> nn.Module:
    """Return the float network between stubs, in training mode."""
    return Stubbed(network(setting))


def prepared(
    model: nn.Module, state: FakeQuantState, qconfig: QConfig = default_qat_8bit_fake_quant_qconfig
) -> ObservedGraphModule:
    """Return a copy prepared for quantization, in a state; in training mode where that trains."""
    with march_scope(March.BAYES_E):
        made = prepare_qat_fx(copy.deepcopy(model), {"": qconfig})
    assert isinstance(made, ObservedGraphModule)
    made.train(state is FakeQuantState.QAT)
    set_fake_quantize(made, state)
    return made


def calibrated(model: nn.Module, x: Tensor) -> ObservedGraphModule:
    """Return a copy that has seen one batch, in VALIDATION."""
    made = prepared(model.eval(), FakeQuantState.CALIBRATION)
    with torch.no_grad():
        made(x)
    set_fake_quantize(made, FakeQuantState.VALIDATION)
    return made
