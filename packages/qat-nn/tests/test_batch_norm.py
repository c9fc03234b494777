"""Batch normalization: kept (WithBN) or folded, training or frozen, the converted model is the folded one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_kernels.march import March
from bpu_qat_nn import ArgumentError, DeQuantStub, QATMode, QuantStub, get_qat_mode, qat_mode_scope, set_qat_mode
from bpu_qat_nn.testing import assert_exact, calibrate, differing, prepared, real_inputs, train_steps
from bpu_qconfig import FakeQuantState, set_fake_quantize

SHAPE = (4, 4, 6, 6)
(INPUT,) = real_inputs((SHAPE,), seed=4)


class Chain(nn.Module):
    """Layer, normalization, ReLU."""

    def __init__(self, layer: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.quant, self.dequant, self.layer, self.norm = QuantStub(), DeQuantStub(), layer, norm

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dequant(F.relu(self.norm(self.layer(self.quant(x)))))
        return y


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv2d": lambda: nn.Conv2d(4, 8, 3),
    "conv2d without bias": lambda: nn.Conv2d(4, 8, 3, bias=False),
    "grouped": lambda: nn.Conv2d(4, 8, 3, groups=2),
    "depthwise": lambda: nn.Conv2d(4, 8, 3, groups=4),
    "transposed": lambda: nn.ConvTranspose2d(4, 8, 2, 2),
    "grouped transposed": lambda: nn.ConvTranspose2d(4, 8, 2, 2, groups=2),
    "depthwise transposed": lambda: nn.ConvTranspose2d(4, 8, 2, 2, groups=4),
}
NORMS: dict[str, Callable[[], nn.Module]] = {
    "BatchNorm2d": lambda: nn.BatchNorm2d(8),
    "without affine": lambda: nn.BatchNorm2d(8, affine=False),
    "cumulative": lambda: nn.BatchNorm2d(8, momentum=None, eps=1e-3),
    "SyncBatchNorm": lambda: nn.SyncBatchNorm(8),
}


def chain(layer: str = "conv2d", norm: str = "BatchNorm2d") -> Any:
    torch.manual_seed(0)
    model: Any = Chain(LAYERS[layer](), NORMS[norm]())
    model.norm.running_mean.normal_()
    model.norm.running_var.uniform_(0.5, 2.0)
    if model.norm.affine:
        nn.init.uniform_(model.norm.weight, -1.5, 1.5)
        nn.init.normal_(model.norm.bias)
    return model.eval()


def with_bn(model: nn.Module, march: March | str = "bayes") -> Any:
    with qat_mode_scope(QATMode.WithBN):
        observed = prepared(model, march)
    calibrate(observed, (SHAPE,))
    return observed


@pytest.mark.parametrize("march", [March.BERNOULLI2, March.BAYES], ids=str)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("layer", LAYERS)
def test_kept_normalization_agrees_before_and_after_training(layer: str, norm: str, march: March) -> None:
    model = with_bn(chain(layer, norm), march)
    assert_exact(model, (INPUT,))
    mean = model.layer.bn.running_mean.clone()
    train_steps(model, (SHAPE,))
    assert not torch.equal(model.layer.bn.running_mean, mean)
    assert_exact(model, (INPUT,))


def test_folding_at_once_and_at_the_end_give_nearly_the_same_model() -> None:
    kept = with_bn(chain())
    folded = prepared(chain(), "bayes")
    calibrate(folded, (SHAPE,))
    step = float(kept.layer.activation_post_process.scale)
    with torch.no_grad():
        assert float((kept(INPUT) - folded(INPUT)).abs().max()) <= 1.01 * step


def test_training_normalizes_by_the_batch_as_the_float_model_does() -> None:
    net = chain()
    model = with_bn(net).train()
    set_fake_quantize(model, FakeQuantState.QAT)
    with torch.no_grad():
        got, expected = model(INPUT), net.train()(INPUT)
    assert float((got - expected).abs().mean()) < 0.05 * float(expected.abs().mean())
    assert torch.allclose(model.layer.bn.running_var, net.norm.running_var, rtol=0.05)


def test_gamma_of_zero_gives_finite_gradients_and_can_be_learned() -> None:
    net = chain()
    nn.init.zeros_(net.norm.weight)
    model = with_bn(net).train()
    set_fake_quantize(model, FakeQuantState.QAT)
    model(INPUT).sum().backward()
    gamma = model.layer.bn.weight
    assert torch.isfinite(model.layer.weight.grad).all()
    assert torch.isfinite(gamma.grad).all()
    assert gamma.grad.abs().sum() > 0
    train_steps(model, (SHAPE,), steps=3, lr=0.1)
    assert_exact(model, (INPUT,))


def test_frozen_normalization_is_folded_in_training_and_keeps_its_statistics() -> None:
    model = with_bn(chain()).train()
    set_fake_quantize(model, FakeQuantState.QAT)
    model.layer.bn.eval()
    mean = model.layer.bn.running_mean.clone()
    model(INPUT).sum().backward()
    assert torch.equal(model.layer.bn.running_mean, mean)
    assert model.layer.bn.weight.grad is not None
    train_steps(model, (SHAPE,))
    assert_exact(model, (INPUT,))


def test_switching_between_train_and_eval_changes_nothing_else() -> None:
    net = chain(norm="cumulative")
    net.drop = nn.Dropout(0.3)
    model = with_bn(net)
    norm = model.layer.bn
    before = (norm.momentum, norm.eps, model(INPUT))
    model.train().eval()
    assert (norm.momentum, norm.eps) == before[:2] == (None, 1e-3)
    assert differing(model(INPUT), before[2]) == 0


def test_normalization_by_itself_trains_and_agrees() -> None:
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.dequant, self.norm = QuantStub(), DeQuantStub(), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.dequant(self.norm(F.relu(self.quant(x))))
            return y

    model: Any = prepared(Alone(), "bayes")
    calibrate(model, (SHAPE,))
    train_steps(model, (SHAPE,))
    assert_exact(model, (INPUT,))
    assert not model.norm.weight.requires_grad  # ones, which are no parameters of the float model
    assert model.norm.bn.weight.requires_grad


def test_one_convolution_called_twice_with_its_normalization_is_folded_once() -> None:
    class Shared(Chain):
        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.layer(self.quant(x)))
            y: Tensor = self.dequant(self.norm(self.layer(x)))
            return y

    torch.manual_seed(0)
    net: Any = Shared(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)).eval()
    net.norm.running_var.fill_(4.0)
    for mode in QATMode.FuseBN, QATMode.WithBN:
        with qat_mode_scope(mode):
            model = prepared(net, "bayes")
        calibrate(model, (SHAPE,))
        assert_exact(model, (INPUT,))
        step = float(model.layer.activation_post_process.scale)
        with torch.no_grad():
            assert float((model(INPUT) - net(INPUT)).abs().mean()) < 2 * step


def test_mode_is_set_within_a_block_only() -> None:
    with qat_mode_scope(QATMode.WithBN):
        assert get_qat_mode() is QATMode.WithBN
    assert get_qat_mode() is QATMode.FuseBN
    set_qat_mode(QATMode.WithBN)
    assert get_qat_mode() is QATMode.WithBN
    set_qat_mode(QATMode.FuseBN)


@pytest.mark.parametrize("mode", [QATMode.WithBNReverseFold, "with_bn", None])
def test_unknown_and_unsupported_modes_are_refused(mode: Any) -> None:
    with pytest.raises(ArgumentError, match=r"expected QATMode\.FuseBN or QATMode\.WithBN"):
        set_qat_mode(mode)
