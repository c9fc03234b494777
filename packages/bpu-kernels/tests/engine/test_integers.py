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

from bpu_kernels import KERNELS, March, golden, march_row, run
from bpu_kernels.engine import native_available, set_engine_threads
from bpu_kernels.kernel import IntArray, Kernel
from bpu_kernels.testing import assert_integers_equal, program_of, random_case, random_program

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
