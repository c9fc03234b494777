"""The backend "native": plans are kept, progress is told, and without an engine there is a warning, then numpy."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bpu_kernels import (
    ArgumentError,
    March,
    Node,
    Program,
    ProgramBuilder,
    ProgramInput,
    ProgramOutput,
    TensorSpec,
    qint8,
    run,
)
from bpu_kernels.engine import backend as engine_backend
from bpu_kernels.engine import engine_threads, native_available, set_engine_threads
from bpu_kernels.engine.backend import _plans
from bpu_kernels.engine.library import SIGNATURES
from bpu_kernels.engine.settings import isa_wanted
from bpu_kernels.engine.steps import ON_NUMPY, OPCODES, STEPS
from bpu_kernels.ops.choose import Gather, TopIndices
from bpu_kernels.ops.concat import Concat
from bpu_kernels.ops.lut import Lut8
from bpu_kernels.table import KERNELS
from bpu_kernels.testing import assert_integers_equal, random_integers, random_program

NATIVE = Path(__file__).parents[2] / "native" / "src"

CODE = """
import warnings
import numpy as np
from bpu_kernels import run
from bpu_kernels.engine import native_available
from bpu_kernels.testing import random_program

program, x = random_program("bayes", np.random.default_rng(0))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    results = [run(program, x, backend=backend) for backend in ("auto", "native", "native", "numpy")]
assert all((result[name] == results[0][name]).all() for result in results for name in result)
print(native_available(), *(warning.message for warning in caught), sep="|")
"""


def test_every_operator_has_a_writer() -> None:
    assert set(STEPS) | ON_NUMPY == set(KERNELS.values())
    assert not ON_NUMPY & set(STEPS)


def test_kinds_of_steps_are_those_of_the_library() -> None:
    makers = (NATIVE / "plan.cpp").read_text().split("kMakers[] = {")[1].split("};")[0]
    assert makers.count("make_") == len(OPCODES)
    assert "make_" + OPCODES[0] in makers


def test_functions_are_those_of_the_header() -> None:
    header = (NATIVE / "engine.h").read_text()
    assert all(f" {name}(" in header.replace("* ", " ") for name in SIGNATURES)


def test_without_a_library_numpy_runs_after_one_warning(tmp_path: Path) -> None:
    environment = os.environ | {"BPU_ENGINE_LIBRARY": str(tmp_path / "missing.so")}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    available, *warned = done.stdout.strip().split("|")
    assert available == "False"
    assert len(warned) == 1
    assert "there is no missing.so" in warned[0]
    assert "C++17 compiler" in warned[0]


def test_file_that_is_no_library_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.so").write_bytes(b"no library")
    environment = os.environ | {"BPU_ENGINE_LIBRARY": str(tmp_path / "broken.so")}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    assert "broken.so cannot be loaded" in done.stdout


def test_plan_is_made_once_and_dropped_with_its_program(engine: ctypes.CDLL) -> None:
    program, x = random_program("bayes", np.random.default_rng(1))
    run(program, x, backend="native")
    run(program, x, backend="native")
    assert len(engine_backend._plans[program]) == 1
    run(program, x, keep=True, backend="native")
    plan = weakref.ref(next(iter(engine_backend._plans[program].values())))
    del program
    gc.collect()
    assert plan() is None


def test_progress_is_told_of_every_node_in_order(engine: ctypes.CDLL) -> None:
    program, x = random_program("bayes", np.random.default_rng(2))
    seen: list[str] = []
    got = run(program, x, backend="native", progress=lambda node, position, count: seen.append(node.name))
    assert seen == [node.name for node in program.nodes]
    for name, value in run(program, x, backend="numpy").items():
        assert_integers_equal(got[name], value)


def test_numpy_takes_its_turn_between_steps(engine: ctypes.CDLL) -> None:
    """An operator without steps reads an input and what a step made, and writes into a concatenation and an output."""
    rng = np.random.default_rng(3)
    builder = ProgramBuilder("bayes")
    x = builder.input("x", (2, 4, 5, 6), "qint8", 1.0)
    table = Lut8(table=random_integers(rng, (256,)))
    first = builder.add(table, x, name="first", scale=1.0)
    places = builder.add(TopIndices(axis=3, k=3), first, name="places", scale=1.0)
    taken = builder.add(Gather(axis=3), x, places, name="taken", scale=1.0)
    joined = builder.add(Concat(axis=3), taken, first, name="joined", scale=1.0)
    last = builder.add(table, joined, name="last", scale=1.0)
    again = builder.add(Gather(axis=3), last, places, name="again", scale=1.0)
    for name, output in {"places": places, "last": last, "again": again}.items():
        builder.output(output, name)
    program = builder.build()
    inputs = random_integers(rng, (2, 4, 5, 6))
    expected = run(program, inputs, keep=True, backend="numpy")
    seen: list[str] = []
    for got in (
        run(program, inputs, backend="native"),
        run(program, inputs, keep=True, backend="native"),
        run(program, inputs, backend="native", progress=lambda node, position, count: seen.append(node.name)),
    ):
        for name in got:
            assert_integers_equal(got[name], expected[name], what=name)
    assert seen == [node.name for node in program.nodes]


def test_inputs_are_left_as_they_are(engine: ctypes.CDLL) -> None:
    for seed in range(20):
        program, x = random_program("bayes", np.random.default_rng(seed))
        before = x.copy()
        run(program, x, keep=True, backend="native")
        assert_integers_equal(x, before)


def test_input_of_any_strides_and_alignment_is_read(engine: ctypes.CDLL) -> None:
    program, x = random_program("bayes", np.random.default_rng(3))
    expected = run(program, x, backend="numpy")
    buffer = np.empty(x.size + 3, np.int8)[3:]
    odd = buffer.reshape(x.shape)
    odd[...] = x
    for given in (odd, np.asfortranarray(x), x.astype(np.int32)):
        for name, value in run(program, given, backend="native").items():
            assert_integers_equal(value, expected[name])


def test_number_of_threads_is_settable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPU_ENGINE_THREADS", "3")
    assert engine_threads() == 3
    set_engine_threads(2)
    assert engine_threads() == 2
    set_engine_threads(None)
    monkeypatch.delenv("BPU_ENGINE_THREADS")
    assert engine_threads() >= 1


@pytest.mark.parametrize(
    ("variable", "value", "read"),
    [("BPU_ENGINE_THREADS", "0", engine_threads), ("BPU_ENGINE_ISA", "sse9", isa_wanted)],
    ids=["threads", "instruction set"],
)
def test_bad_setting_is_named(
    variable: str, value: str, read: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ArgumentError, match=variable):
        read()


def test_less_than_one_thread_is_refused() -> None:
    with pytest.raises(ArgumentError, match="at least one thread"):
        set_engine_threads(0)


def test_validating_a_program_again_sees_its_arrays_as_they_are() -> None:
    if not native_available():
        pytest.skip("no native engine")
    table = np.arange(-128, 128).astype(np.int8)
    spec = TensorSpec((1, 5), qint8)
    program = Program(
        march=March.BAYES,
        inputs=(ProgramInput(name="x", spec=spec, scale=(1.0,)),),
        nodes=(Node(name="table", kernel=Lut8(table=table), inputs=("x",), output="y", scale=(1.0,)),),
        outputs=(ProgramOutput(name="y", tensor="y"),),
    )
    x = np.arange(5, dtype=np.int8)[None]
    assert_integers_equal(run(program, x)["y"], x)
    table[:] = 7
    program.validate()
    assert_integers_equal(run(program, x)["y"], np.full_like(x, 7))


def test_few_plans_are_kept() -> None:
    if not native_available():
        pytest.skip("no native engine")
    program, x = random_program("bayes", np.random.default_rng(5))
    for node in program.nodes:
        run(program, x, keep=[node.name], backend="native")
    assert len(_plans[program]) <= 3
