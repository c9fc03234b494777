"""The engine's passes over tensors under training give what plain operators of torch give, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch")

from bpu_kernels import ArgumentError  # noqa: E402
from bpu_kernels.dtypes import qint8  # noqa: E402
from bpu_kernels.engine import native_available  # noqa: E402
from bpu_kernels.fixed_point import Multiplier  # noqa: E402
from bpu_kernels.march import march_row  # noqa: E402
from bpu_kernels.multiplier import Bias, ResidualScale  # noqa: E402
from bpu_kernels.ops.conv import Conv2d  # noqa: E402
from bpu_kernels.torch_ops import LayerPass, finish, quantize_rows  # noqa: E402
from bpu_kernels.torch_ops.layer_pass import ACTIVATIONS  # noqa: E402

pytestmark = pytest.mark.skipif(not native_available(), reason="the native engine is not installed")

SHAPES = [(2, 5, 7, 9), (1, 16, 8, 8), (3, 33, 1, 1), (1, 2, 40, 41), (2, 7)]
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def _in_format(x: Any, name: str) -> Any:
    return x.contiguous(memory_format=FORMATS[name]) if x.dim() == 4 else x


def _parameters(rng: np.random.Generator, channels: int, march: str) -> tuple[Multiplier, Bias, ResidualScale]:
    def integers(low: int, high: int) -> np.ndarray:
        return rng.integers(low, high, channels)

    by = Multiplier(
        accu_right_shift=integers(0, 8), output_scale=integers(1, 2**15), output_right_shift=integers(10, 25)
    )
    bias = Bias(bias=integers(-(2**14), 2**14), bias_left_shift=integers(0, 5))
    shifts = integers(-6, 6) if march != "bernoulli2" else integers(0, 6)
    return by, bias, ResidualScale(sumin_scale=integers(-(2**14), 2**14), sumin_left_shift=shifts)


@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("march", ["bernoulli2", "bayes"])
@pytest.mark.parametrize("residual", [False, True], ids=["alone", "residual"])
@pytest.mark.parametrize("relu", [None, "relu", "relu6"])
def test_output_of_a_layer(shape: tuple[int, ...], memory: str, march: str, residual: bool, relu: str | None) -> None:
    rng, row, channels = np.random.default_rng(len(shape) + residual), march_row(march), shape[1]
    acc = _in_format(torch.from_numpy(rng.integers(-(2**22), 2**22, shape)).float(), memory)
    by, bias, scale = _parameters(rng, channels, march)
    added = torch.from_numpy(rng.integers(-128, 128, shape).astype(np.int8)) if residual else None
    values = None if added is None else added.float() * 0.25
    unit, real_bias = (rng.normal(size=channels).astype(np.float32) * 1e-5 for _ in range(2))
    both = None if added is None else (added, values)
    layer = LayerPass(acc, 1, residual=both, unit=unit, bias=real_bias, activation=relu)

    top = 37 if relu == "relu6" else qint8.max
    limits = (qint8.min if relu is None else 0, top)
    steps, reals, bits = layer.output(
        row, by, bias, scale if residual else None, limits=limits, scale=0.125, passing=(-3.0, 5.0)
    )
    tensors = {name: torch.from_numpy(value) for name, value in vars(by).items()}
    kernel = Conv2d(
        weight=None,
        multiplier=Multiplier(**tensors),
        bias=Bias(**{name: torch.from_numpy(value) for name, value in vars(bias).items()}),
        residual=ResidualScale(**{n: torch.from_numpy(v) for n, v in vars(scale).items()}) if residual else None,
        relu=relu is not None,
    )
    expected = finish(kernel, acc.to(torch.int32), row, added).clamp(max=top)
    assert torch.equal(steps, expected)
    assert torch.equal(reals, expected.float() * 0.125)
    assert steps.stride() == acc.stride()
    alone, nothing, none = layer.output(row, by, bias, scale if residual else None, limits=limits)
    assert torch.equal(alone, expected)
    assert (nothing, none) == (None, None)

    broadcast = (-1, *(1,) * (len(shape) - 2))
    real = (acc * torch.from_numpy(unit).view(broadcast) + torch.from_numpy(real_bias).view(broadcast)).requires_grad_()
    whole = real if values is None else real + values
    active = {None: lambda x: x, "relu": torch.relu, "relu6": lambda x: x.clamp(0.0, 6.0)}[relu](whole)
    assert torch.equal(layer.extremes(), torch.stack(torch.aminmax(active)))
    gradient = _in_format(torch.from_numpy(rng.normal(size=shape)).float(), memory)
    torch.where((active >= -3.0) & (active <= 5.0), active, 0.0).backward(gradient)
    assert bits is not None
    assert torch.equal(bits.masked(gradient), real.grad)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_range_of_a_layer_with_nan_is_nan(activation: str | None) -> None:
    bias = np.array([0, np.nan, 0], np.float32)
    layer = LayerPass(torch.ones(1, 3, 4, 4), 1, unit=np.ones(3, np.float32), bias=bias, activation=activation)
    assert torch.isnan(layer.extremes()).all()


def test_weights_with_nan_are_refused() -> None:
    x = torch.ones(3, 40)
    x[1, 7] = torch.nan
    with pytest.raises(ArgumentError, match="row 1 of the weights holds NaN"):
        quantize_rows(x, torch.ones(1), -128, 127)


def test_incomplete_layers_are_refused() -> None:
    acc, row, none = torch.zeros(1, 3, 4, 4), march_row("bayes"), np.zeros(1, np.int64)
    by = Multiplier(accu_right_shift=none, output_scale=none, output_right_shift=none)
    with pytest.raises(ArgumentError, match="a residual and its scales, or neither"):
        LayerPass(acc, 1, residual=(acc.to(torch.int8), None)).output(row, by, None, None, limits=(-128, 127))
    with pytest.raises(ArgumentError, match="for 3 channels"):
        LayerPass(acc, 1).extremes()


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (1, 2000), (37, 5), (8, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("clips", [False, True])
def test_quantized_rows(shape: tuple[int, ...], clips: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    scale = x.flatten(1).abs().amax(1) / (60.0 if clips else 200.0)
    scale = scale if clips else scale * 2
    found = quantize_rows(x, scale, -50, 49) if clips else quantize_rows(x, scale, -128, 127)
    low, high = (-50, 49) if clips else (-128, 127)
    along = scale.view(-1, *(1,) * (x.dim() - 1))
    steps = (x / along).round().clamp(low, high)
    assert torch.equal(found.steps, steps)
    assert torch.equal(found.values, steps * along)
    assert np.array_equal(found.sums, steps.abs().flatten(1).sum(1).double().numpy())
    inside = (x >= (low - 0.5) * along) & (x <= (high + 0.5) * along)
    assert (found.passes is None) == bool(inside.all())
    if found.passes is not None:
        assert torch.equal(found.passes.masked(torch.ones_like(x)) == 1.0, inside)


def test_residual_of_another_shape_or_type_is_refused() -> None:
    acc = torch.zeros(1, 3, 4, 4)
    for residual in (torch.zeros(1, 3, 1, 1, dtype=torch.int8), torch.zeros(1, 3, 4, 4, dtype=torch.int16)):
        with pytest.raises(ArgumentError, match=r"expected a residual torch\.int8"):
            LayerPass(acc, 1, residual=(residual, None))
