"""Operators of torch tensors on the native engine: equal in every layout, packed once, and never out of date."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from bpu_kernels import KERNELS, March, march_row
from bpu_kernels.fields import map_arrays
from bpu_kernels.kernel import IntArray, Kernel
from bpu_kernels.ops.elementwise import Relu
from bpu_kernels.ops.resize import ResizeBilinear
from bpu_kernels.testing import assert_integers_equal, random_case

torch = pytest.importorskip("torch")
torch_ops = pytest.importorskip("bpu_kernels.torch_ops")
native = pytest.importorskip("bpu_kernels.torch_ops.native")
run_on_torch = pytest.importorskip("bpu_kernels.torch_ops.run").run_on_torch

NAMES = sorted(cls.name for cls in native._NATIVE)
RUNNABLE = [(name, march) for march in March for name in NAMES if name not in march_row(march).refused_kernels]

LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "contiguous": lambda x: x.contiguous(),
    "channels last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1) if x.dim() > 1 else x,
    "transposed": lambda x: x.mT.contiguous().mT if x.dim() > 1 else x,
    "within a larger tensor": lambda x: torch.nn.functional.pad(x, (1, 2))[..., 1:-2],
    "every second element": lambda x: x.repeat_interleave(2, -1)[..., ::2],
}


def as_tensors(kernel: Kernel, inputs: tuple[IntArray, ...]) -> tuple[Any, list[Any]]:
    """Return kernel and inputs as tensors, feature maps with the channels second."""
    first = type(kernel) in torch_ops.CHANNEL_FIRST
    tensors = [torch.from_numpy(np.moveaxis(x, -1, 1).copy() if first else x.copy()) for x in inputs]
    return map_arrays(kernel, lambda path, array: torch.from_numpy(array.copy())), tensors


def expected(kernel: Kernel, march: March, inputs: tuple[IntArray, ...]) -> IntArray:
    """Return the reference's integers, the channels where torch has them."""
    y = kernel.run(march_row(march), *inputs)
    return np.moveaxis(y, -1, 1) if type(kernel) in torch_ops.CHANNEL_FIRST else y


def natively(kernel: Any, march: March, *tensors: Any) -> Any:
    """Run on the engine; it must not leave the case to torch."""
    y = native.run_natively(kernel, march_row(march), tensors)
    assert y is not None
    return y


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("name", "march"), RUNNABLE, ids=str)
def test_integers_are_the_references_in_every_layout(name: str, march: March, layout: str, isa: str) -> None:
    for seed in range(3):
        kernel, inputs = random_case(name, march, np.random.default_rng(seed))
        of_torch, tensors = as_tensors(kernel, inputs)
        y = natively(of_torch, march, *map(LAYOUTS[layout], tensors))
        assert_integers_equal(y.numpy(), expected(kernel, march, inputs), what=name)


@pytest.mark.usefixtures("engine")
def test_types_that_the_march_refuses_are_left_to_torch() -> None:
    """The engine would write half of the output's memory."""
    kernel = ResizeBilinear(size=(8, 8), legacy=False, precision=16)
    x = torch.full((1, 3, 4, 4), 100, dtype=torch.int16)
    assert native.run_natively(kernel, march_row("bayes"), [x]) is None
    assert native.run_natively(kernel, march_row("bayes"), [x.to(torch.int8)]) is not None


def convolution(seed: int = 0) -> tuple[Any, Any, Any, list[Any]]:
    kernel, inputs = random_case("conv2d", "bayes", np.random.default_rng(seed))
    return (kernel, inputs, *as_tensors(kernel, inputs))


@pytest.mark.usefixtures("engine")
def test_channels_last_memory_goes_in_and_comes_out() -> None:
    _, _, kernel, tensors = convolution()
    y = torch_ops.run(kernel, march_row("bayes"), *map(LAYOUTS["channels last"], tensors))
    assert y.movedim(1, -1).is_contiguous()


@pytest.mark.usefixtures("engine")
def test_one_kernel_takes_signed_and_positive_inputs() -> None:
    kernel, inputs, of_torch, tensors = convolution()
    for lowest in (-128, 0, -128):
        clipped = (np.maximum(inputs[0], lowest), *inputs[1:])
        y = natively(of_torch, March.BAYES, tensors[0].clamp(min=lowest), *tensors[1:])
        assert_integers_equal(y.numpy(), expected(kernel, March.BAYES, clipped))


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("path", ["weight", "multiplier.output_scale"])
def test_parameters_changed_in_place_count_at_once(path: str) -> None:
    _, _, kernel, tensors = convolution()
    before = natively(kernel, March.BAYES, *tensors)
    changed = kernel
    for name in path.split("."):
        changed = getattr(changed, name)
    changed.copy_(-changed - 1 if path == "weight" else changed // 2)
    after = natively(kernel, March.BAYES, *tensors)
    assert torch.equal(after, run_on_torch(kernel, march_row("bayes"), *tensors))
    assert not torch.equal(after, before)


@pytest.mark.usefixtures("engine")
def test_what_was_packed_is_shared_by_kernels_of_the_same_arrays() -> None:
    _, _, kernel, tensors = convolution()
    natively(kernel, March.BAYES, *tensors)
    again = map_arrays(kernel, lambda path, array: array)
    natively(again, March.BAYES, *tensors)
    (packed,) = native._of_array[kernel.weight]
    assert len(packed.plans) == 1


@pytest.mark.usefixtures("engine")
def test_what_was_packed_goes_with_its_arrays() -> None:
    _, _, kernel, tensors = convolution()
    natively(kernel, March.BAYES, *tensors)
    packed = weakref.ref(native._of_kernel[kernel])
    del kernel
    gc.collect()
    assert packed() is None


@pytest.mark.usefixtures("engine")
def test_shapes_may_change_from_call_to_call() -> None:
    kernel, inputs, of_torch, tensors = convolution()
    for batch in (1, 3, 2, 1):
        repeated = tuple(np.repeat(x[:1], batch, 0) for x in inputs)
        y = natively(of_torch, March.BAYES, *(x[:1].repeat(batch, *(1,) * (x.dim() - 1)) for x in tensors))
        assert_integers_equal(y.numpy(), expected(kernel, March.BAYES, repeated))


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("name", ["add", "mul"])
def test_an_operand_without_axes_meets_every_element(name: str) -> None:
    kernel, inputs = random_case(name, "bayes", np.random.default_rng(0))
    of_torch, (x, y) = as_tensors(kernel, inputs)

    found = natively(of_torch, March.BAYES, x, y.flatten()[0])

    number = np.broadcast_to(y.numpy().ravel()[0], inputs[0].shape)
    assert_integers_equal(found.numpy(), expected(kernel, March.BAYES, (inputs[0], number)), what=name)


@pytest.mark.usefixtures("engine")
def test_a_tensor_without_axes_stays_one() -> None:
    table, _ = as_tensors(*random_case("lut8", "bayes", np.random.default_rng(0)))

    found = natively(table, March.BAYES, torch.tensor(-3, dtype=torch.int8))

    assert found.shape == ()
    assert int(found) == int(table.table[-3 + 128])


@pytest.mark.usefixtures("engine")
def test_several_threads_may_run_one_kernel() -> None:
    kernel, inputs, of_torch, tensors = convolution()
    with ThreadPoolExecutor(4) as pool:
        found = [each.result() for each in [pool.submit(natively, of_torch, March.BAYES, *tensors) for _ in range(32)]]
    for y in found:
        assert_integers_equal(y.numpy(), expected(kernel, March.BAYES, inputs))


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float32"])
def test_other_types_are_left_to_torch(dtype: str) -> None:
    _, _, kernel, tensors = convolution()
    assert native.run_natively(kernel, march_row("bayes"), [x.to(getattr(torch, dtype)) for x in tensors]) is None


def test_what_torch_is_faster_at_is_left_to_it() -> None:
    assert native.run_natively(Relu(), march_row("bayes"), [torch.zeros(3, dtype=torch.int8)]) is None
    assert set(KERNELS) - set(NAMES) == {
        *("concat", "constant", "pad", "reinterpret", "reshape", "resize_nearest", "slice", "transpose"),
        *("matmul", "relu"),
        *("arg_extremum", "extremum", "reduce_extremum"),
        *("gather", "grid_sample", "roi_align", "top_indices"),
    }


def test_empty_batches_are_left_to_torch() -> None:
    _, _, kernel, tensors = convolution()
    empty = [x[:0] for x in tensors]
    assert native.run_natively(kernel, march_row("bayes"), empty) is None
    assert torch_ops.run(kernel, march_row("bayes"), *empty).shape[0] == 0


def test_fake_tensors_are_left_to_torch() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    _, _, kernel, tensors = convolution()
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(x) for x in tensors]
        assert native.run_natively(kernel, march_row("bayes"), fakes) is None
        assert native.run_natively(kernel, march_row("bayes"), tensors) is None


def test_transforms_of_torch_are_left_to_torch() -> None:
    _, _, kernel, tensors = convolution()
    seen = []

    def one(x: Any) -> Any:
        seen.append(native.run_natively(kernel, march_row("bayes"), [x, *tensors[1:]]))
        return x

    torch.vmap(one)(tensors[0][None])
    assert seen == [None]


@pytest.mark.usefixtures("engine")
def test_inference_tensors_are_taken() -> None:
    with torch.inference_mode():
        kernel, inputs, of_torch, tensors = convolution()
        y = natively(of_torch, March.BAYES, *tensors)
    assert_integers_equal(y.numpy(), expected(kernel, March.BAYES, inputs))
