"""QAT state: what training sees is what the board computes, and gradients are those of fake quantization."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_kernels.march import March
from bpu_qat_nn import DeQuantStub, QATModule, QTensor, QuantStub
from bpu_qat_nn.testing import NETS, calibrate, prepared, real_inputs
from bpu_qconfig import (
    FakeQuantState,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    set_fake_quantize,
)

NET_CASES = [pytest.param(name, march, id=f"{name}-{march}") for name, case in NETS.items() for march in case.marches]


@pytest.mark.parametrize(("name", "march"), NET_CASES)
def test_every_layer_in_qat_state_is_within_one_step_of_validation_given_equal_inputs(name: str, march: March) -> None:
    case = NETS[name]
    model = prepared(case.model(), march)
    calibrate(model, case.shapes)
    model.train()
    set_fake_quantize(model, FakeQuantState.QAT)
    seen: list[tuple[str, QATModule, tuple[Any, ...], Tensor]] = []

    def record(path: str) -> Any:
        def hook(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, QTensor) and all(isinstance(x, QTensor) for x in inputs):
                seen.append((path, module, inputs, output.int_repr().clone()))

        return hook

    hooks = [m.register_forward_hook(record(p)) for p, m in model.named_modules() if isinstance(m, QATModule)]
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    model(*real_inputs(case.shapes, seed=3))
    for hook in hooks:
        hook.remove()
    model.eval()
    set_fake_quantize(model, FakeQuantState.VALIDATION)
    calls: dict[int, int] = {}
    for _, module, _, _ in seen:
        calls[id(module)] = calls.get(id(module), 0) + 1
    for path, module, inputs, trained in seen:
        if calls[id(module)] > 1:  # a shared module's scale went on moving after its first call
            continue
        with torch.no_grad():
            difference = (module(*inputs).int_repr().int() - trained.int()).abs()
        assert int(difference.max()) <= 1, path
        assert float((difference > 0).float().mean()) <= 0.001, path


class OneConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.conv, self.relu, self.dequant = QuantStub(), nn.Conv2d(4, 6, 3), nn.ReLU(), DeQuantStub()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dequant(self.relu(self.conv(self.quant(x))))
        return y


def test_gradients_equal_those_of_ordinary_fake_quantization() -> None:
    model = prepared(OneConv(), "bayes")
    calibrate(model, ((2, 4, 8, 8),))
    model.train()
    set_fake_quantize(model, FakeQuantState.QAT)
    for module in model.modules():
        if isinstance(module, MovingAverageMinMaxObserver | MovingAveragePerChannelMinMaxObserver):
            module.averaging_constant = 0.0  # freezes the scales, so that the reference can use them
    (x,) = real_inputs(((2, 4, 8, 8),), seed=5)
    x.requires_grad_()
    model(x).square().sum().backward()

    conv: Any = model.conv
    s_x = float(model.quant.activation_post_process.scale)
    s_y = float(conv.activation_post_process.scale)
    s_w, zero = conv.weight_fake_quant.scale, torch.zeros(6, dtype=torch.int32)
    x2, w2, b2 = (t.detach().clone().requires_grad_() for t in (x, conv.weight, conv.bias))
    fake_x = torch.fake_quantize_per_tensor_affine(x2, s_x, 0, -128, 127)
    fake_w = torch.fake_quantize_per_channel_affine(w2, s_w, zero, 0, -128, 127)
    y = F.relu(F.conv2d(fake_x, fake_w, b2))
    loss: Any = torch.fake_quantize_per_tensor_affine(y, s_y, 0, -128, 127).square().sum()
    loss.backward()

    # The largest weight of a channel lies half a step beyond the last integer: torch's gradient is 0 there, not ours.
    at_edge = (w2.detach() / s_w.reshape(-1, 1, 1, 1)).round().abs() > 127
    layer: Any = conv
    w2_grad: Any = w2.grad
    pairs: Any = ((x.grad, x2.grad), (layer.weight.grad[~at_edge], w2_grad[~at_edge]), (layer.bias.grad, b2.grad))
    for ours, reference in pairs:
        # The outputs, which the loss's gradient contains, may differ by one step (0.8 % of the largest) here and there.
        assert float((ours - reference).abs().max()) <= 0.02 * float(reference.abs().max())


def test_training_reduces_the_loss() -> None:
    torch.manual_seed(1)
    model = prepared(OneConv(), "bernoulli2")
    calibrate(model, ((4, 4, 8, 8),))
    model.train()
    set_fake_quantize(model, FakeQuantState.QAT)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    (x,) = real_inputs(((4, 4, 8, 8),), seed=1)
    losses = []
    for _ in range(20):
        loss = (model(x) - 0.3).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
