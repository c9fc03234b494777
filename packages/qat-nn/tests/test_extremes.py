"""Numbers that break naive quantization: the integers still agree, and nothing is NaN."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_kernels.march import March
from bpu_qat_nn import DeQuantStub, QuantStub
from bpu_qat_nn.testing import assert_exact, calibrate, prepared, real_inputs, train_steps
from bpu_qconfig import FixedScaleObserver, default_qat_out_8bit_fake_quant_qconfig, get_default_qconfig

SHAPE = (2, 4, 6, 5)


class Body(nn.Module):
    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.layers, self.function = nn.ModuleList(layers), function

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dequant(self.function(self.quant(x), *self.layers))
        return y


def conv(change: Callable[[nn.Conv2d], object], **options: int) -> nn.Conv2d:
    made = nn.Conv2d(4, 4, 3, padding=1, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        change(made)
    return made


def norm(change: Callable[[nn.BatchNorm2d], object]) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(4)
    with torch.no_grad():
        change(made)
    return made


def bias(layer: nn.Module) -> Tensor:
    assert isinstance(layer.bias, Tensor)
    return layer.bias


def plain(x: Tensor, layer: nn.Module) -> Tensor:
    y: Tensor = layer(x)
    return y


BODIES: dict[str, Callable[[], nn.Module]] = {
    "a dead channel": lambda: Body(plain, conv(lambda c: (c.weight[0].zero_(), bias(c)[0].zero_()))),
    "a dead channel with bias": lambda: Body(plain, conv(lambda c: c.weight[0].zero_())),
    "all weights zero": lambda: Body(plain, conv(lambda c: (c.weight.zero_(), bias(c).zero_()))),
    "a bias of 1e6 beside ordinary ones": lambda: Body(plain, conv(lambda c: bias(c)[0].fill_(1e6))),
    "a bias of 1e-12": lambda: Body(plain, conv(lambda c: bias(c).fill_(1e-12))),
    "weights of 1e-12": lambda: Body(plain, conv(lambda c: c.weight.mul_(1e-12))),
    "weights of 1e8": lambda: Body(plain, conv(lambda c: c.weight.mul_(1e8))),
    "weights from 1e-6 to 1e6": lambda: Body(
        plain, conv(lambda c: c.weight.mul_(torch.logspace(-6, 6, 4)[:, None, None, None]))
    ),
    "a depthwise layer with a dead channel": lambda: Body(plain, conv(lambda c: c.weight[1].zero_(), groups=4)),
    "a small layer plus a huge residual": lambda: Body(lambda x, c: c(x * 1e-4) + x * 1e3, conv(lambda c: None)),
    "a huge layer plus a small residual": lambda: Body(lambda x, c: c(x * 1e3) + x * 1e-4, conv(lambda c: None)),
    "a dead layer plus a residual": lambda: Body(lambda x, c: F.relu(c(x) + x), conv(lambda c: c.weight.zero_())),
    "sum of 1e-5 and 1": lambda: Body(lambda x: x * 1e-5 + F.relu(x)),
    "sum of 1e5 and 1": lambda: Body(lambda x: x * 1e5 + F.relu(x)),
    "difference of equals": lambda: Body(lambda x: F.relu(x) - F.relu(x)),
    "concatenation of 1e-4, 1, 1e4": lambda: Body(lambda x: torch.cat([x * 1e-4, x, x * 1e4], 1)),
    "a ReLU that nothing passes": lambda: Body(lambda x, c: c(F.relu(x - 100.0)), conv(lambda c: None)),
    "a constant": lambda: Body(lambda x, c: c(x * 0.0 + 1.0), conv(lambda c: None)),
    "scales of 1e-8 and 1e4 after each other": lambda: Body(lambda x: ((x * 1e-8) * 1e12 + x) * -1e-3),
    "scalars 0 and -0": lambda: Body(lambda x: (x * 0.0 + 0.5) * -0.0),
    "sigmoid of 1e4": lambda: Body(lambda x: torch.sigmoid(x * 1e4)),
    "tanh of 1e-6": lambda: Body(lambda x: torch.tanh(x * 1e-6)),
    "product of 1e-6 and 1e6": lambda: Body(lambda x: (x * 1e-6) * (F.relu(x) * 1e6)),
    "ReLU6 of 100": lambda: Body(lambda x, c: F.relu6(c(x)), conv(lambda c: c.weight.mul_(100))),
    "gamma of 0": lambda: Body(
        lambda x, c, b: F.relu(b(c(x))), conv(lambda c: None), norm(lambda b: b.weight[0].zero_())
    ),
    "a variance of 1e-12": lambda: Body(
        lambda x, c, b: F.relu(b(c(x))),
        conv(lambda c: None),
        norm(lambda b: b.running_var.fill_(1e-12)),  # type: ignore[union-attr]
    ),
    "many saturating taps": lambda: Body(
        lambda x, a, b: b(F.relu(a(x) * 0.0 + 5.0)),
        nn.Conv2d(4, 512, 1),
        nn.Conv2d(512, 4, 3),
    ),
}


@pytest.mark.parametrize("march", [March.BERNOULLI2, March.BAYES], ids=str)
@pytest.mark.parametrize("name", BODIES)
def test_integers_agree_with(name: str, march: March) -> None:
    torch.manual_seed(0)
    model = prepared(BODIES[name]().eval(), march)
    calibrate(model, (SHAPE,))
    (inputs,) = real_inputs((SHAPE,), seed=9)
    converted = assert_exact(model, (inputs,))
    assert torch.isfinite(converted(inputs)).all()
    train_steps(model, (SHAPE,), steps=2, lr=1e-4)
    assert_exact(model, (inputs,))


def fixed(scale: float, bits: int = 8) -> object:
    return get_default_qconfig(
        activation_qkwargs={"observer": FixedScaleObserver, "scale": scale, "dtype": f"qint{bits}"}
    )


@pytest.mark.parametrize("scale", [6 / 127, 0.1, 0.5, 4.0, 100.0])
@pytest.mark.parametrize("march", [March.BERNOULLI2, March.BAYES], ids=str)
def test_fused_relu6_clips_at_the_step_nearest_to_six(scale: float, march: March) -> None:
    model = prepared(
        Body(lambda x, c: F.relu6(c(x)), conv(lambda c: c.weight.mul_(100))).eval(),
        march,
        module_name=[("layers.0", fixed(scale))],
    )
    calibrate(model, (SHAPE,))
    converted = assert_exact(model, real_inputs((SHAPE,), seed=9))
    largest = converted(*real_inputs((SHAPE,), seed=9)).max()
    assert float(largest) == float(torch.tensor(round(6.0 / scale) * scale))


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1.0, 1e4])
@pytest.mark.parametrize("march", [March.BERNOULLI2, March.BAYES], ids=str)
def test_fixed_scales_of_any_size_agree(scale: float, march: March) -> None:
    model = prepared(
        Body(lambda x, c: torch.tanh(c(x) + x) * x, conv(lambda c: None)).eval(),
        march,
        module_name=[("quant", fixed(scale)), ("_generated_add_0", fixed(scale))],
    )
    calibrate(model, (SHAPE,))
    assert_exact(model, real_inputs((SHAPE,), seed=9, spread=scale * 50))


HIGH_PRECISION: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv2d": (lambda: nn.Conv2d(4, 6, 3), (2, 4, 6, 5)),
    "conv2d of one pixel": (lambda: nn.Conv2d(4, 6, 3), (1, 4, 3, 3)),
    "linear of two axes": (lambda: nn.Linear(7, 3), (5, 7)),
    "linear of three axes": (lambda: nn.Linear(7, 3), (2, 5, 7)),
    "linear of four axes": (lambda: nn.Linear(7, 3), (2, 4, 5, 7)),
}


@pytest.mark.parametrize("relu", [False, True], ids=["", "relu"])
@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("name", HIGH_PRECISION)
def test_high_precision_outputs_agree(name: str, residual: bool, relu: bool) -> None:
    make, shape = HIGH_PRECISION[name]

    def function(x: Tensor, wide: nn.Module, narrow: nn.Module) -> Tensor:
        y: Tensor = wide(x) + narrow(x) if residual else wide(x)
        return F.relu(y) if relu else y

    body = Body(function, make(), make()).eval()
    model = prepared(body, "bayes", module_name=[("layers.0", default_qat_out_8bit_fake_quant_qconfig)])
    calibrate(model, (shape,))
    (inputs,) = real_inputs((shape,), seed=10)
    assert_exact(model, (inputs,))
    train_steps(model, (shape,))
    assert assert_exact(model, (inputs,))(inputs).shape == body(inputs).shape
