"""What the engine does of a training step is what numpy and plain operators of torch do, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch: Any = pytest.importorskip("torch")

from bpu_kernels import ArgumentError  # noqa: E402
from bpu_kernels.dtypes import qint8  # noqa: E402
from bpu_kernels.engine import native_available  # noqa: E402
from bpu_kernels.march import MARCHES, march_row  # noqa: E402
from bpu_kernels.multiplier import (  # noqa: E402
    choose_bias,
    choose_multiplier,
    choose_residual_scale,
    smallest_weight_scale,
)
from bpu_kernels.ops.conv import Conv2d  # noqa: E402
from bpu_kernels.torch_ops import (  # noqa: E402
    LayerPass,
    LayerTraining,
    Range,
    finish,
    row_values,
    train_rows,
)

pytestmark = pytest.mark.skipif(not native_available(), reason="the native engine is not installed")

SHAPES = [(2, 5, 7, 9), (1, 16, 8, 8), (3, 33, 1, 1), (1, 2, 40, 41), (2, 3, 20, 35), (2, 7), (1, 700, 3, 3)]
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
UNTOUCHED = [-3.0, 2.0, 0.125]
"""Smallest value, largest value and scale of ``range_of``."""


def in_format(x: Any, name: str) -> Any:
    return x.contiguous(memory_format=FORMATS[name]) if x.dim() == 4 else x


def as_tensors(parameters: Any) -> Any:
    return type(parameters)(**{name: torch.from_numpy(value) for name, value in vars(parameters).items()})


def numbers(by: Range) -> list[float]:
    return [float(each) for each in (by.min_val, by.max_val, by.scale)]


def range_of(entries: int, *, observes: bool, scale: float = 0.125, limits: tuple[int, int] = (-128, 127)) -> Range:
    return Range(
        min_val=torch.full((entries,), -3.0),
        max_val=torch.full((entries,), 2.0),
        scale=torch.full((entries,), scale),
        constant=0.25,
        quant_min=limits[0],
        quant_max=limits[1],
        observes=observes,
    )


def follow(by: Range, low: Any, high: Any) -> tuple[Any, Any, Any]:
    """The moving average of bpu_qconfig's observers, and the scale of the range, which stays where the range does."""
    before = torch.maximum(-by.min_val, by.max_val)
    low = by.min_val + by.constant * (low - by.min_val)
    high = by.max_val + by.constant * (high - by.max_val)
    after = torch.maximum(-low, high)
    scale = (2.0 * after / (by.quant_max - by.quant_min)).clamp(min=2.0**-40)
    return low, high, torch.where(after != before, scale, by.scale)


def chosen(row: Any, operands: dict[str, Any], out: float) -> tuple[Any, Any, Any]:
    """What ``bpu_kernels.multiplier`` chooses, as WeightedOperator of bpu_qat_nn asks it."""
    sums = operands["sums"].numpy()
    unit = np.float64(np.float32(operands["x_scale"])) * operands["weight_scale"].numpy()
    bias = np.zeros_like(unit) if operands["bias"] is None else operands["bias"].double().numpy() / unit
    bound = sums * 128.0 + np.abs(bias) + 1.0
    residual = None
    if operands["residual_scale"] is not None:
        factor = np.float64(np.float32(operands["residual_scale"])) / unit
        residual = choose_residual_scale(factor, row)
        bound = bound + factor * 128.0
    multiplier = choose_multiplier(unit / np.float64(np.float32(out)), bound, qint8, row)
    return multiplier, choose_bias(bias, multiplier, row), residual


def operands_of(rng: np.random.Generator, channels: int, *, residual: bool, bias: bool = True) -> dict[str, Any]:
    return {
        "x_scale": 0.03,
        "residual_scale": 0.25 if residual else None,
        "weight_scale": torch.from_numpy(rng.uniform(1e-4, 1e-2, channels)),
        "bias": torch.from_numpy(rng.normal(size=channels).astype(np.float32)) if bias else None,
        "sums": torch.from_numpy(rng.integers(1, 2**15, channels).astype(np.float64)),
    }


@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("march", MARCHES)
@pytest.mark.parametrize("residual", [False, True], ids=["alone", "residual"])
@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
def test_layer_under_training(
    shape: tuple[int, ...], memory: str, march: str, residual: bool, activation: str | None
) -> None:
    rng, row, channels = np.random.default_rng(5), march_row(march), shape[1]
    acc = in_format(torch.from_numpy(rng.integers(-(2**15), 2**15, shape)).float(), memory)
    operands = operands_of(rng, channels, residual=residual, bias=activation is not None)
    added = torch.from_numpy(rng.integers(-128, 128, shape).astype(np.int8)) if residual else None
    values = None if added is None else added.float() * 0.25

    along = (-1, *(1,) * (len(shape) - 2))
    unit = (np.float64(np.float32(operands["x_scale"])) * operands["weight_scale"]).float().view(along)
    real = (acc * unit).requires_grad_()
    whole = real if operands["bias"] is None else real + operands["bias"].view(along)
    whole = whole if values is None else whole + values
    active = {None: lambda x: x, "relu": torch.relu, "relu6": lambda x: x.clamp(0.0, 6.0)}[activation](whole)
    by = range_of(1, observes=True)
    low, high, scale = follow(by, *torch.aminmax(active.detach()))
    multiplier, bias, residual_scale = chosen(row, operands, float(scale))
    kernel = Conv2d(
        weight=None,
        multiplier=as_tensors(multiplier),
        bias=as_tensors(bias),
        residual=None if residual_scale is None else as_tensors(residual_scale),
        relu=activation is not None,
    )
    top = min(127, round(6.0 / float(scale))) if activation == "relu6" else 127
    expected = finish(kernel, acc.to(torch.int32), row, added).clamp(max=top)

    both = None if added is None or values is None else (added, values)
    layer = LayerPass(acc.clone(), 1, residual=both, activation=activation)
    found = LayerTraining(row, **operands).run(layer, by, needs_gradient=True)
    assert found is not None
    assert found.passes is not None
    assert (by.min_val, by.max_val, by.scale) == (low, high, scale)
    assert torch.equal(found.steps, expected)
    assert torch.equal(found.values, expected.float() * scale)
    assert found.steps.stride() == found.values.stride() == acc.stride()

    gradient = in_format(torch.from_numpy(rng.normal(size=shape)).float(), memory)
    inside = (active >= -128.5 * scale) & (active <= 127.5 * scale)
    torch.where(inside, active, 0.0).backward(gradient)
    masked, sums = found.passes.masked(gradient, sums=True)
    assert torch.equal(masked, real.grad)
    axes = [axis for axis in range(len(shape)) if axis != 1]
    torch.testing.assert_close(sums, real.grad.sum(axes), rtol=1e-5, atol=1e-5)


def test_range_that_is_not_observed_stays() -> None:
    rng, by = np.random.default_rng(0), range_of(1, observes=False)
    layer = LayerPass(torch.ones(1, 3, 4, 4), 1)
    found = LayerTraining(march_row("bayes"), **operands_of(rng, 3, residual=False)).run(
        layer, by, needs_gradient=False
    )
    assert found is not None
    assert found.passes is None
    assert numbers(by) == UNTOUCHED


def test_output_that_is_not_finite_changes_nothing() -> None:
    operands = operands_of(np.random.default_rng(0), 3, residual=False)
    operands["bias"][1] = torch.inf
    acc, by = torch.ones(1, 3, 4, 4), range_of(1, observes=True)
    assert LayerTraining(march_row("bayes"), **operands).run(LayerPass(acc, 1), by, needs_gradient=False) is None
    assert numbers(by) == UNTOUCHED
    assert torch.equal(acc, torch.ones(1, 3, 4, 4))


positive = st.floats(2.0**-40, 2.0**10, width=32)


@given(
    march=st.sampled_from(list(MARCHES)),
    x=positive,
    weight=positive,
    out=positive,
    residual=st.none() | positive,
    bias=st.floats(-(2.0**20), 2.0**20, width=32),
    taps=st.integers(0, 32767),
)
def test_chosen_parameters_are_those_of_numpy(
    march: Any, x: float, weight: float, out: float, residual: float | None, bias: float, taps: int
) -> None:
    """The outputs of accumulators over their whole range tell parameters apart that differ in effect."""
    row, sums = march_row(march), float(127 * taps)
    operands = {
        "x_scale": x,
        "residual_scale": residual,
        "weight_scale": torch.tensor([weight], dtype=torch.float64),
        "bias": torch.tensor([bias]),
        "sums": torch.tensor([sums], dtype=torch.float64),
    }
    training = LayerTraining(row, **operands)
    smallest = smallest_weight_scale(
        np.array([x], np.float64),
        row,
        bias=np.array([bias], np.float64),
        residual_scale=None if residual is None else np.array([residual], np.float64),
    )
    assert training.needs_larger_scale() == bool(weight < smallest)
    if weight < smallest:
        return
    acc = torch.linspace(-128.0 * sums, 128.0 * sums, 61).round().clamp(-(2.0**24), 2.0**24).reshape(61, 1, 1, 1)
    added = torch.arange(-30, 31, dtype=torch.int8).mul(4).reshape(61, 1, 1, 1) if residual else None
    multiplier, stored, residual_scale = chosen(row, operands, out)
    kernel = Conv2d(
        weight=None,
        multiplier=as_tensors(multiplier),
        bias=as_tensors(stored),
        residual=None if residual_scale is None else as_tensors(residual_scale),
        relu=False,
    )
    expected = finish(kernel, acc.to(torch.int32), row, added)
    layer = LayerPass(acc.clone(), 1, residual=None if added is None else (added, added.float()))
    found = training.run(layer, range_of(1, observes=False, scale=out), needs_gradient=False)
    assert found is not None
    assert torch.equal(found.steps, expected)


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (1, 2000), (37, 5), (8, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize("observes", [False, True])
def test_rows_of_weights(shape: tuple[int, ...], memory: str, observes: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = in_format(torch.randn(shape, generator=generator), memory)
    by = range_of(shape[0], observes=observes, scale=0.02, limits=(-50, 49))
    rows = x.reshape(shape[0], -1)
    low, high, scale = follow(by, rows.amin(1), rows.amax(1)) if observes else (by.min_val, by.max_val, by.scale)
    found = train_rows(x, by)
    assert found is not None
    for got, wanted in zip((by.min_val, by.max_val, by.scale), (low, high, scale), strict=True):
        assert torch.equal(got, wanted)
    along = scale.view(-1, *(1,) * (x.dim() - 1))
    steps = (x / along).round().clamp(-50, 49)
    assert torch.equal(found.steps, steps)
    assert torch.equal(found.stored, steps.to(torch.int8))
    assert torch.equal(row_values(found.stored, scale), steps * along)
    assert torch.equal(found.sums, steps.abs().flatten(1).sum(1).double())
    inside = (x >= -50.5 * along) & (x <= 49.5 * along)
    assert (found.passes is None) == bool(inside.all())
    if found.passes is not None:
        assert torch.equal(found.passes.masked_(torch.ones_like(x)) == 1.0, inside)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf], ids=str)
def test_weights_that_are_not_finite_change_nothing(bad: float) -> None:
    x, by = torch.ones(3, 40), range_of(3, observes=True)
    x[1, 7] = bad
    assert train_rows(x, by) is None
    assert by.min_val.tolist() == [-3.0] * 3
    assert by.scale.tolist() == [0.125] * 3


def test_tensors_that_the_library_cannot_read_are_refused() -> None:
    operands = operands_of(np.random.default_rng(0), 3, residual=False)
    row = march_row("bayes")
    with pytest.raises(ArgumentError, match=r"expected 3 numbers of torch\.float64"):
        LayerTraining(row, **{**operands, "weight_scale": torch.ones(3)})
    with pytest.raises(ArgumentError, match="expected accumulators of 3 channels"):
        LayerTraining(row, **operands).run(
            LayerPass(torch.ones(1, 4, 2, 2), 1), range_of(1, observes=False), needs_gradient=False
        )
    with pytest.raises(ArgumentError, match=r"expected 4 numbers of torch\.float32"):
        train_rows(torch.ones(4, 5), range_of(3, observes=True))
