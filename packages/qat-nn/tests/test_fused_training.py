"""Training on the engine's passes is training on plain operators of torch: same integers, same gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bpu_kernels.engine import native_available
from bpu_kernels.march import March
from bpu_qat_nn import QTensor
from bpu_qat_nn.ops.weighted import layer as weighted_layer
from bpu_qat_nn.ops.weighted.fused_training import train_fused
from bpu_qat_nn.testing import CASES, NETS, OperatorCase, calibrate, prepared, real_inputs
from bpu_qat_nn.testing.case import WithResidual
from bpu_qconfig import FakeQuantState, set_fake_quantize

pytestmark = pytest.mark.skipif(not native_available(), reason="the native engine is not installed")

LAYERS = [
    name
    for name, case in CASES.items()
    if name.startswith(("conv2d", "conv3d", "conv_transpose2d", "linear")) and 8 in case.bits
]


def step(
    model: torch.nn.Module, inputs: tuple[Tensor, ...], march: March, memory: torch.memory_format
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return the outputs of a training step, and every gradient and buffer after it."""
    observed = prepared(model, march)
    calibrate(observed, tuple(tuple(x.shape) for x in inputs))
    observed.train()
    set_fake_quantize(observed, FakeQuantState.QAT)
    given = [x.to(memory_format=memory) if x.dim() == 4 else x for x in inputs]
    given = [x.detach().requires_grad_() for x in given]
    found = observed(*given)
    outputs = list(found) if isinstance(found, (tuple, list)) else [found]
    generator = torch.Generator().manual_seed(3)
    torch.autograd.backward(outputs, [torch.randn(y.shape, generator=generator) for y in outputs])
    state = {f"input {i}": x.grad for i, x in enumerate(given) if x.grad is not None}
    state |= {name: p.grad for name, p in observed.named_parameters() if p.grad is not None}
    return [y.detach() for y in outputs], state | dict(observed.named_buffers())


def assert_same_step(
    model_of: object,
    shapes: tuple[tuple[int, ...], ...],
    march: March,
    memory: torch.memory_format,
    patch: pytest.MonkeyPatch,
) -> None:
    inputs = real_inputs(shapes, 5)
    outputs, state = step(model_of(), inputs, march, memory)  # type: ignore[operator]
    patch.setattr(weighted_layer, "can_fuse", lambda *arguments: False)
    expected, expected_state = step(model_of(), inputs, march, memory)  # type: ignore[operator]
    for got, wanted in zip(outputs, expected, strict=True):
        assert torch.equal(got, wanted)
    assert state.keys() == expected_state.keys()
    for name, wanted in expected_state.items():
        torch.testing.assert_close(
            state[name], wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max() + 1e-12), msg=name
        )


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    assert_same_step(case.model, case.shapes, case.marches[0], torch.contiguous_format, monkeypatch)


@pytest.mark.parametrize("name", ["conv2d_relu6", "conv2d_depthwise", "conv2d_add_relu", "conv_transpose2d_k2s2"])
def test_layer_in_channels_last(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    assert_same_step(case.model, case.shapes, March.BAYES, torch.channels_last, monkeypatch)


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "unet"])
def test_net(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = NETS[name]
    assert_same_step(case.model, case.shapes, March.BAYES, torch.contiguous_format, monkeypatch)


def test_ordinary_layers_are_fused() -> None:
    case = NETS["resnet"]
    observed = prepared(case.model(), March.BAYES)
    calibrate(observed, case.shapes)
    layers = [module for module in observed.modules() if isinstance(module, weighted_layer.WeightedQAT)]
    taken: list[object] = []

    def noted(layer: weighted_layer.WeightedQAT, *inputs: QTensor) -> QTensor:
        taken.append(layer)
        return train_fused(layer, *inputs)

    observed.train()
    set_fake_quantize(observed, FakeQuantState.QAT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weighted_layer, "train_fused", noted)
        observed(*real_inputs(case.shapes, 1))
    assert len(set(map(id, taken))) >= len(layers) - 1, "all but the high-precision output"


def test_one_pixel_added_to_a_larger_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """The residual has the input's shape, but not the output's."""
    case = OperatorCase(
        make=lambda: WithResidual(nn.ConvTranspose2d(8, 8, 2, 2), None, nn.ReLU()), shapes=((2, 8, 1, 1),) * 2
    )
    assert_same_step(case.model, case.shapes, March.BAYES, torch.contiguous_format, monkeypatch)


def test_gradient_of_the_gradient_is_refused() -> None:
    case = CASES["conv2d_3x3"]
    observed = prepared(case.model(), March.BAYES)
    calibrate(observed, case.shapes)
    observed.train()
    set_fake_quantize(observed, FakeQuantState.QAT)
    (x,) = (each.requires_grad_() for each in real_inputs(case.shapes, 1))
    (first,) = torch.autograd.grad(observed(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        torch.autograd.backward(first.sum())
