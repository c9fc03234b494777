"""Carriers: whatever floating type and form a device sums integers in, the sums are exact, at their largest too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bpu_kernels import March, march_row
from bpu_kernels.fields import map_arrays
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.ops.conv import Conv2d
from bpu_kernels.ops.linear import Linear
from bpu_kernels.testing import assert_integers_equal, random_case

torch = pytest.importorskip("torch")
torch_ops = pytest.importorskip("bpu_kernels.torch_ops")
carriers = pytest.importorskip("bpu_kernels.torch_ops.carriers")
products = pytest.importorskip("bpu_kernels.torch_ops.products")
weighted = pytest.importorskip("bpu_kernels.torch_ops.weighted")

CARRIERS = {
    **carriers.CARRIERS,
    "float64": carriers.FLOAT64,
    "of short sums": carriers.Carrier(dtype=torch.float32, limit=2**16),
    "of short sums as products": carriers.Carrier(dtype=torch.float32, limit=2**17, as_products=True),
}
"""Forced on the CPU: what a GPU does in other ways is only how fast float32 is multiplied."""
LAYERS = ["conv2d", "conv3d", "conv_transpose2d", "linear"]
RUNNABLE = [(name, march) for march in March for name in LAYERS if name not in march_row(march).refused_kernels]


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize(("name", "march"), RUNNABLE, ids=str)
def test_layer_gives_the_references_integers_by_every_carrier(name: str, march: March, carrier: str) -> None:
    row, first = march_row(march), name != "linear"
    for seed in range(8):
        kernel, inputs = random_case(name, march, np.random.default_rng(seed))
        x, *addend = (torch.from_numpy(np.moveaxis(each, -1, 1).copy() if first else each) for each in inputs)
        if x.dtype != torch.int8:
            continue
        of_torch = map_arrays(kernel, lambda path, array: torch.from_numpy(array.copy()))
        acc = torch_ops.accumulate(of_torch, x, CARRIERS[carrier])
        got = torch_ops.finish(of_torch, acc, row, *addend).numpy()
        assert_integers_equal(np.moveaxis(got, 1, -1) if first else got, kernel.run(row, *inputs), what=name)


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("taps", [1023, 1024, 1025, 4608])
def test_largest_sums_are_exact(taps: int, carrier: str) -> None:
    """One sum of -128 * -128, and one of which every other sign differs."""
    weight = torch.full((2, taps), -128, dtype=torch.int8)
    weight[1, ::2] = 127
    none = torch.zeros(2, dtype=torch.int32)
    by = Multiplier(accu_right_shift=none, output_scale=none, output_right_shift=none)
    x = torch.full((3, taps), -128, dtype=torch.int8)
    acc = torch_ops.accumulate(Linear(weight=weight, multiplier=by), x, CARRIERS[carrier])
    assert torch.equal(acc, x.int() @ weight.int().T)


@pytest.mark.parametrize("carrier", CARRIERS)
def test_products_of_activations_are_exact(carrier: str) -> None:
    for seed in range(8):
        kernel, inputs = random_case("matmul", "bayes", np.random.default_rng(seed))
        x, y = map(torch.from_numpy, inputs)
        got = weighted.matmul(kernel, x, y, CARRIERS[carrier])
        assert np.array_equal(got.numpy(), inputs[0].astype(np.int64) @ inputs[1].astype(np.int64))


def test_images_whose_windows_need_too_much_memory_go_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "CHUNK_BYTES", 1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-128, 128, (3, 4, 7, 9), generator=generator).float()
    weight = torch.randint(-128, 128, (6, 4, 3, 3), generator=generator).float()
    none: Any = None
    kernel = Conv2d(weight=weight.movedim(1, -1), multiplier=none, stride=(2, 1), pad=(1, 0))
    expected = torch.nn.functional.conv2d(x, weight, None, (2, 1), (1, 0))
    assert torch.equal(products.convolution_of_windows(kernel, x, weight), expected)


def test_setting_of_tensor_cores_is_left_as_it_was() -> None:
    settings = torch.backends.cuda.matmul
    before = settings.allow_tf32
    with pytest.raises(KeyError), carriers.tensor_cores():
        raise KeyError
    assert settings.allow_tf32 == before


def test_int16_and_unknown_devices_are_carried_by_float64() -> None:
    x, y = torch.zeros(1, dtype=torch.int8), torch.zeros(1, dtype=torch.int16)
    assert carriers.carrier_for(x, y) is carriers.FLOAT64
    assert carriers.carrier_for(x.to("meta")) is carriers.FLOAT64
    assert carriers.carrier_for(x) is carriers.CARRIERS["cpu"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("name", "march"), [*RUNNABLE, ("matmul", March.BAYES)], ids=str)
def test_layer_on_a_gpu_gives_the_references_integers(name: str, march: March) -> None:
    row, first = march_row(march), name in ("conv2d", "conv3d", "conv_transpose2d")
    for seed in range(12):
        kernel, inputs = random_case(name, march, np.random.default_rng(seed))
        tensors = [torch.from_numpy(np.moveaxis(each, -1, 1).copy() if first else each).cuda() for each in inputs]
        of_torch = map_arrays(kernel, lambda path, array: torch.from_numpy(array.copy()).cuda())
        got = torch_ops.run(of_torch, row, *tensors).cpu().numpy()
        assert_integers_equal(np.moveaxis(got, 1, -1) if first else got, kernel.run(row, *inputs), what=name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("channels", [64, 113, 114, 512])
def test_largest_sums_of_a_convolution_are_exact_on_a_gpu(channels: int) -> None:
    none: Any = None
    weight = torch.full((32, 3, 3, channels), -128, dtype=torch.int8)
    weight[1::2, :, :, ::2] = 127
    kernel = Conv2d(weight=weight.cuda(), multiplier=none, pad=(1, 1))
    x = torch.full((2, channels, 30, 30), -128, dtype=torch.int8)
    expected = torch.nn.functional.conv2d(x.double(), weight.movedim(-1, 1).double(), None, padding=1)
    assert torch.equal(torch_ops.accumulate(kernel, x.cuda()).cpu(), expected.int())
