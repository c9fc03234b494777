"""The engine's passes over accumulators give what plain operators of torch give, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch")

from bpu_kernels import ArgumentError  # noqa: E402
from bpu_kernels.engine import native_available  # noqa: E402
from bpu_kernels.torch_ops import LayerPass  # noqa: E402
from bpu_kernels.torch_ops.layer_pass import ACTIVATIONS  # noqa: E402

pytestmark = pytest.mark.skipif(not native_available(), reason="the native engine is not installed")

SHAPES = [(2, 5, 7, 9), (1, 16, 8, 8), (3, 33, 1, 1), (1, 2, 40, 41), (2, 3, 20, 35), (2, 7), (1, 700, 3, 3)]
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def in_format(x: Any, name: str) -> Any:
    return x.contiguous(memory_format=FORMATS[name]) if x.dim() == 4 else x


@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("residual", [False, True], ids=["alone", "residual"])
@pytest.mark.parametrize("relu", ACTIVATIONS)
def test_range_of_a_layer(shape: tuple[int, ...], memory: str, residual: bool, relu: str | None) -> None:
    rng = np.random.default_rng(3)
    acc = in_format(torch.from_numpy(rng.integers(-(2**22), 2**22, shape)).float(), memory)
    unit, bias = (torch.from_numpy(rng.normal(size=shape[1]).astype(np.float32) * 1e-5) for _ in range(2))
    added = torch.from_numpy(rng.integers(-128, 128, shape).astype(np.int8))
    values = added.float() * 0.25
    along = (-1, *(1,) * (len(shape) - 2))
    real = acc * unit.view(along) + bias.view(along)
    real = real + values if residual else real
    active = {None: lambda x: x, "relu": torch.relu, "relu6": lambda x: x.clamp(0.0, 6.0)}[relu](real)
    layer = LayerPass(acc, 1, residual=(added, values) if residual else None, activation=relu)
    assert torch.equal(layer.extremes(unit, bias), torch.stack(torch.aminmax(active)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_range_of_a_layer_with_nan_is_nan(activation: str | None) -> None:
    layer = LayerPass(torch.ones(1, 3, 4, 4), 1, activation=activation)
    assert torch.isnan(layer.extremes(torch.ones(3), torch.tensor([0.0, torch.nan, 0.0]))).all()


def test_incomplete_layers_are_refused() -> None:
    acc = torch.zeros(1, 3, 4, 4)
    with pytest.raises(ArgumentError, match="for 3 channels"):
        LayerPass(acc, 1).extremes(torch.ones(2), torch.ones(2))


def test_residual_of_another_shape_or_type_is_refused() -> None:
    acc = torch.zeros(1, 3, 4, 4)
    for residual in (torch.zeros(1, 3, 1, 1, dtype=torch.int8), torch.zeros(1, 3, 4, 4, dtype=torch.int16)):
        with pytest.raises(ArgumentError, match=r"expected a residual torch\.int8"):
            LayerPass(acc, 1, residual=(residual, acc))


def test_accumulators_dense_in_no_layout_are_copied() -> None:
    acc = torch.arange(48.0).reshape(2, 3, 4, 2).transpose(1, 2)
    found = LayerPass(acc, 1).extremes(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.zeros(4))
    assert torch.equal(found, torch.stack(torch.aminmax(acc[:, 0])))
