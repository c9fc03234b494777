"""The engine gives the reference's integers: every operator, every recorded case, whole nets, any number of threads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpu_kernels import KERNELS, March, ProgramBuilder, Value, golden, march_row, qint8, quant_dtype, run
from bpu_kernels.engine import native_available, set_engine_threads
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.kernel import IntArray, Kernel
from bpu_kernels.ops.conv import Conv2d
from bpu_kernels.ops.elementwise import Relu
from bpu_kernels.ops.layout import Slice
from bpu_kernels.testing import assert_integers_equal, program_of, random_case, random_integers, random_program

GOLDEN = Path(__file__).parent.parent / "golden"
RUNNABLE = [(name, march) for march in March for name in KERNELS if name not in march_row(march).refused_kernels]


@pytest.fixture(autouse=True, params=[1, 3], ids=["one thread", "three threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    set_engine_threads(request.param)
    yield
    set_engine_threads(None)


@pytest.mark.parametrize(("name", "march"), RUNNABLE, ids=str)
def test_operator_gives_the_reference_s_integers(name: str, march: March, isa: str) -> None:
    for seed in range(20):
        kernel, inputs = random_case(name, march, np.random.default_rng(seed))
        program, named = program_of(kernel, march, inputs)
        got = run(program, named, backend="native")["out"]
        assert_integers_equal(got, kernel.run(march_row(march), *inputs), what=f"{name}, seed {seed}")


@pytest.mark.parametrize(("name", "march"), RUNNABLE, ids=str)
def test_operator_between_others_gives_the_reference_s_integers(name: str, march: March, isa: str) -> None:
    """Operands and results in the arena, operands that may be overwritten, and what the engine infers of signs."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        kernel, inputs = random_case(name, march, rng)
        builder = ProgramBuilder(march)
        builder.input("unread", (1, 1), "qint8", 1.0)
        values = [builder.input(f"x{i}", x.shape, quant_dtype(x.dtype), 1.0) for i, x in enumerate(inputs)]
        before = [
            builder.add(Relu() if x.spec.dtype is qint8 and rng.integers(2) else whole(x), x, name="before", scale=1.0)
            for x in values
        ]
        y = builder.add(kernel, *before, name="node", scale=1.0)
        builder.output(builder.add(whole(y), y, name="after", scale=1.0), "copied")
        if y.spec.dtype is qint8 and len(y.spec.shape) == 4:
            builder.output(builder.add(mixing(rng, y.spec.shape[-1]), y, name="mixed", scale=1.0), "mixed")
        program = builder.build()
        named = {"unread": np.zeros((1, 1), np.int8)} | {f"x{i}": x for i, x in enumerate(inputs)}
        got, expected = (run(program, named, backend=backend) for backend in ("native", "numpy"))
        for output, value in expected.items():
            assert_integers_equal(got[output], value, what=f"{name}, seed {seed}, {output}")


def whole(x: Value) -> Slice:
    """Copy all of a tensor."""
    rank = len(x.spec.shape)
    return Slice(start=(0,) * rank, stop=x.spec.shape, step=(1,) * rank)


def mixing(rng: np.random.Generator, channels: int) -> Conv2d:
    """Convolve 1 x 1, which reads the sign of every value."""
    by = Multiplier(
        accu_right_shift=np.zeros(1, np.int32),
        output_scale=np.full(1, 2**14, np.int32),
        output_right_shift=np.full(1, 20, np.int32),
    )
    return Conv2d(weight=random_integers(rng, (5, 1, 1, channels)), multiplier=by)


def recorded(march: str) -> Iterator[tuple[str, Kernel, list[IntArray], IntArray]]:
    """Yield name, kernel, inputs and output of the simulator's cases."""
    for path in sorted((GOLDEN / march).glob("*.npz")):
        with np.load(path, allow_pickle=False) as stored:
            for case in sorted({name.split("/")[0] for name in stored.files}):
                arrays = {name.split("/")[1]: stored[name] for name in stored.files if name.startswith(f"{case}/")}
                params = json.loads(str(arrays.pop("params")))
                if params["op"] != "nv12":
                    kernel = golden.KERNEL_OF[params["op"]](params, arrays)
                    yield f"{path.stem} {case}", kernel, [arrays[key] for key in params["inputs"]], arrays["out"]


@pytest.mark.parametrize("march", ["bernoulli2", "bayes", "bayes-e"])
def test_recorded_case_gives_the_simulator_s_integers(march: str, isa: str) -> None:
    for name, kernel, inputs, out in recorded(march):
        program, named = program_of(kernel, march, inputs)
        assert_integers_equal(run(program, named, backend="native")["out"], out, what=name)


@pytest.mark.parametrize("march", list(March), ids=str)
def test_random_net_gives_the_reference_s_integers(march: March, isa: str) -> None:
    for seed in range(40):
        program, x = random_program(march, np.random.default_rng(seed))
        got, expected = (run(program, x, backend=backend) for backend in ("native", "numpy"))
        for name, value in expected.items():
            assert_integers_equal(got[name], value, what=f"{name}, seed {seed}")


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_every_tensor_of_a_net_can_be_kept(seed: int) -> None:
    if not native_available():
        pytest.skip("no native engine")
    program, x = random_program("bayes", np.random.default_rng(seed))
    got, expected = (run(program, x, keep=True, backend=backend) for backend in ("native", "numpy"))
    for name, value in expected.items():
        assert_integers_equal(got[name], value, what=name)


def test_threads_run_the_same_program_at_the_same_time(isa: str) -> None:
    program, x = random_program("bayes", np.random.default_rng(5), nodes=20)
    images = [np.roll(x, shift) for shift in range(24)]
    expected = [run(program, image, backend="numpy") for image in images]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda image: run(program, image, backend="native"), images))
    for got, wanted in zip(found, expected, strict=True):
        for name, value in wanted.items():
            assert_integers_equal(got[name], value)
