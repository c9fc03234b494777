"""The fourth witness: the vendor's simulator gives the Program's integers. Needs the vendor's toolkit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import bpu_kernels
from bpu_deploy_tools import lower, with_yuv_input
from bpu_deploy_tools.hbdk import (
    CompileOptions,
    HbdkNotFoundError,
    Limits,
    compile_programs,
    find_toolkit,
    read_hbm,
    simulate,
)
from bpu_deploy_tools.hbdk.buildable import NOT_BUILT
from bpu_deploy_tools.hbdk.hbir import plan
from bpu_deploy_tools.hbdk.layers import BUILD
from bpu_deploy_tools.lowering.layout import channels_last
from bpu_kernels import KERNELS, Program, ProgramBuilder, UnsupportedError, quant_dtype
from bpu_kernels.march import March, march_row
from bpu_kernels.ops.choose import Gather, TopIndices
from bpu_kernels.ops.constant import Constant
from bpu_kernels.ops.elementwise import Relu
from bpu_kernels.ops.layout import Slice
from bpu_kernels.testing import assert_integers_equal, random_case, random_program
from bpu_qat_nn import convert_fx
from bpu_qat_nn.testing import CASES, NETS, calibrate, prepared, real_inputs, train_steps
from bpu_qconfig import default_qat_out_8bit_fake_quant_qconfig, march_scope

WITHOUT_INPUT = "constant"
"""The kernel that makes no model by itself."""

OPERATORS = [
    pytest.param(name, march, id=f"{name}-{march}")
    for name, kernel in KERNELS.items()
    for march in March
    if name not in (*march_row(march).refused_kernels, WITHOUT_INPUT) and kernel not in NOT_BUILT
]
CASES_OF_MODULES = [
    pytest.param(name, march, bits, id=f"{name}-{march}-{bits}")
    for name, case in CASES.items()
    for march in case.marches
    for bits in case.bits
    if bits == 8 or march is not March.BERNOULLI2
]
REFUSED = {("select", March.BERNOULLI2): r"reshape to \(2, 10, 12\)"} | {
    (name, march): r"(grid_sample|roi_align): its rule is ours"
    for name in CASES
    for march in March
    if name.startswith("grid_sample") or "roi_align" in name
}
"""Cases that are valid Programs, and for which the vendor's compiler has no form -> what is said of them."""
WHOLE_NETS = [pytest.param(name, march, id=f"{name}-{march}") for name, case in NETS.items() for march in case.marches]


def stored(inputs: tuple[Tensor, ...], program: Program) -> dict[str, Any]:
    """Quantize real inputs, in a Program's layout."""
    pairs = zip(program.inputs, inputs, strict=True)
    arrays = {each.name: np.ascontiguousarray(x.permute(channels_last(x.dim())).numpy()) for each, x in pairs}
    return bpu_kernels.quantize_inputs(program, arrays)


def assert_simulated(program: Program, inputs: dict[str, Any]) -> None:
    """Compare every output of the simulator with the numpy reference."""
    got = simulate(program, inputs, limits=Limits(seconds=600, memory_gib=10))
    for output, value in bpu_kernels.run(program, inputs, backend="numpy").items():
        assert_integers_equal(got[output], value, what=output)


def one_operator(name: str, march: March, seed: int) -> tuple[Program, dict[str, Any]]:
    kernel, inputs = random_case(name, march, np.random.default_rng(seed))
    builder = ProgramBuilder(march)
    values = [builder.input(f"x{i}", x.shape, x.dtype, 1.0) for i, x in enumerate(inputs)]
    builder.output(builder.add(kernel, *values, name="op", scale=1.0), "y")
    return builder.build(), {f"x{i}": x for i, x in enumerate(inputs)}


@pytest.mark.hbdk
@pytest.mark.parametrize(("name", "march"), OPERATORS)
def test_simulator_gives_the_integers_of_the_operator(name: str, march: March) -> None:
    for seed in range(4):
        program, inputs = one_operator(name, march, seed)
        assert_simulated(program, inputs)


@pytest.mark.hbdk
@pytest.mark.parametrize("march", list(March), ids=str)
def test_simulator_takes_constants_as_operands(march: March) -> None:
    name = "add_scaled" if march is March.BERNOULLI2 else "add"
    kernel, (x, y) = random_case(name, march, np.random.default_rng(1))
    builder = ProgramBuilder(march)
    constant = Constant(values=y.reshape(-1).astype(np.int32), shape=y.shape, dtype=quant_dtype(y.dtype))
    values = builder.input("x", x.shape, x.dtype, 1.0), builder.add(constant, name="table", scale=1.0)
    builder.output(builder.add(kernel, *values, name="sum", scale=1.0), "y")
    program = builder.build()
    assert_simulated(program, {"x": x})


@pytest.mark.hbdk
@pytest.mark.parametrize(("name", "march"), WHOLE_NETS)
def test_simulator_gives_the_integers_of_the_net(name: str, march: March) -> None:
    case = NETS[name]
    wide = [(path, default_qat_out_8bit_fake_quant_qconfig) for path in case.high_precision]
    model = prepared(case.model(), march, module_name=wide)
    calibrate(model, case.shapes)
    reals = real_inputs([(1, *shape[1:]) for shape in case.shapes], seed=5)
    with march_scope(march):
        program = lower(convert_fx(model), reals)
    assert_simulated(program, stored(reals, program))


@pytest.mark.hbdk
@pytest.mark.parametrize("source", ["pyramid", "resizer"])
@pytest.mark.parametrize("march", list(March), ids=str)
@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
def test_simulator_gives_the_integers_of_the_net_on_nv12(name: str, march: March, source: str) -> None:
    case = NETS[name]
    model = prepared(case.model(), march)
    calibrate(model, case.shapes)
    shape = (1, *case.shapes[0][1:])
    with march_scope(march):
        program = with_yuv_input(lower(convert_fx(model), torch.zeros(shape)), source=source)
    frame = np.random.default_rng(2).integers(0, 256, shape[2] * shape[3] * 3 // 2, dtype=np.uint8)
    assert_simulated(program, {program.inputs[0].name: frame})


@pytest.mark.hbdk
@pytest.mark.parametrize(("name", "march", "bits"), CASES_OF_MODULES)
def test_simulator_gives_the_integers_of_the_module(name: str, march: March, bits: int) -> None:
    case = CASES[name]
    model = prepared(case.model(), march, bits)
    calibrate(model, case.shapes)
    train_steps(model, case.shapes)
    reals = real_inputs(case.shapes, seed=11)
    with march_scope(march):
        program = lower(convert_fx(model), reals)
    if (name, march) in REFUSED:
        with pytest.raises(UnsupportedError, match=REFUSED[name, march]):
            plan(program)
        return
    assert_simulated(program, stored(reals, program))


@pytest.mark.hbdk
@pytest.mark.parametrize("march", list(March), ids=str)
def test_simulator_gives_the_integers_of_random_programs(march: March) -> None:
    for seed in range(12):
        program, x = random_program(march, np.random.default_rng(seed))
        assert_simulated(program, {"x": x})


@pytest.mark.hbdk
@pytest.mark.parametrize("march", list(March), ids=str)
def test_simulator_sees_nv12_as_the_program_does(march: March) -> None:
    from bpu_kernels.ops.color import centered_yuv_to_rgb

    builder = ProgramBuilder(march)
    image = builder.input("image", (1, 32, 48, 3), "qint8", 1.0, "pyramid")
    kernel = centered_yuv_to_rgb(march_row(march), swing="full", mean=[123.7], std=[58.0], q_scale=0.02)
    builder.output(builder.add(kernel, image, name="rgb", scale=0.02), "rgb")
    program = builder.build()
    frame = np.random.default_rng(0).integers(0, 256, 32 * 48 * 3 // 2, dtype=np.uint8)
    assert_simulated(program, {"image": frame})


def test_every_kernel_has_builder_calls_or_a_reason() -> None:
    assert {*BUILD, *NOT_BUILT} == set(KERNELS.values())
    assert not BUILD.keys() & NOT_BUILT


def test_program_with_an_operator_of_our_own_is_refused_by_name() -> None:
    kernel, inputs = random_case("grid_sample", March.BAYES, np.random.default_rng(1))
    builder = ProgramBuilder(March.BAYES)
    values = [builder.input(f"x{i}", x.shape, quant_dtype(x.dtype), 1.0) for i, x in enumerate(inputs)]
    builder.output(builder.add(kernel, *values, name="sampled", scale=1.0), "y")
    with pytest.raises(UnsupportedError, match=r"sampled: grid_sample: its rule is ours"):
        plan(builder.build())


def indexed(builder: ProgramBuilder, ranked: tuple[int, ...], moved: bool) -> Program:
    """Gather of 4 rows by where the largest of some other rows are."""
    x = builder.input("x", (1, 4, 2, 3), "qint8", 1.0)
    other = builder.input("other", ranked, "qint8", 1.0)
    index = builder.add(TopIndices(axis=1, k=2), other, name="best", scale=1.0)
    if moved:
        index = builder.add(Slice(start=(0, 0, 0, 0), stop=(1, 1, 2, 3), step=(1,) * 4), index, name="first", scale=1.0)
    builder.output(builder.add(Gather(axis=1), x, index, name="taken", scale=1.0), "y")
    return builder.build()


@pytest.mark.parametrize("moved", [False, True])
def test_wide_indices_that_may_lie_outside_are_refused(moved: bool) -> None:
    assert plan(indexed(ProgramBuilder(March.BAYES), (1, 4, 2, 3), moved)).outputs
    with pytest.raises(UnsupportedError, match=r"taken: gather by 32-bit indices that may lie outside"):
        plan(indexed(ProgramBuilder(March.BAYES), (1, 5, 2, 3), moved))


def test_elements_of_topk_come_from_the_layer_that_finds_their_places() -> None:
    builder = ProgramBuilder(March.BAYES)
    x = builder.input("x", (1, 4, 2, 3), "qint8", 1.0)
    index = builder.add(TopIndices(axis=1, k=2), x, name="best", scale=1.0)
    builder.output(builder.add(Gather(axis=1), x, index, name="taken", scale=1.0), "y")
    assert [call["function"] for call in plan(builder.build()).calls] == ["ModelInput", "TopK"]


@pytest.mark.hbdk
def test_file_tells_the_outputs_of_topk_whose_elements_nothing_reads(tmp_path: Path) -> None:
    builder = ProgramBuilder(March.BAYES)
    x = builder.input("x", (1, 4, 2, 3), "qint8", 1.0)
    index = builder.add(TopIndices(axis=1, k=2), x, name="best", scale=1.0)
    builder.output(builder.add(Relu(), x, name="relu", scale=1.0), "positive")
    builder.output(index, "places")
    program, path = builder.build(), tmp_path / "net.hbm"
    compile_programs({"net": program}, path, CompileOptions(opt="O0", output_layout="NHWC", jobs=2))
    given = {"x": np.random.default_rng(0).integers(-128, 128, (1, 4, 2, 3)).astype(np.int8)}
    assert [output.name for output in read_hbm(path)["net"].outputs] == ["positive", "places"]
    got = simulate(path, given)
    for output, value in bpu_kernels.run(program, given).items():
        assert_integers_equal(got[output], value, what=output)


def test_missing_toolkit_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    find_toolkit.cache_clear()
    monkeypatch.setenv("HBDK_HOME", str(tmp_path))
    with pytest.raises(HbdkNotFoundError, match=r"(?s)HBDK_HOME is .*pip install"):
        find_toolkit()
    find_toolkit.cache_clear()
