"""The integer export gives the Program's integers in ONNX Runtime; the QDQ export differs by steps of rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bpu_deploy_tools import lower
from bpu_deploy_tools.onnx import export_program_to_onnx, export_to_onnx
from bpu_kernels import KERNELS, March, Program, ProgramBuilder, march_row, quantize_inputs, run
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.ops.pool import AvgPool2d
from bpu_kernels.testing import assert_integers_equal, program_of, random_case
from bpu_qat_nn import DeQuantStub, QuantStub, convert_fx, prepare_qat
from bpu_qat_nn.testing import NETS, calibrate, prepared, real_inputs
from bpu_qconfig import FakeQuantState, default_qat_8bit_fake_quant_qconfig, march_scope, set_fake_quantize

onnx: Any = pytest.importorskip("onnx")
runtime: Any = pytest.importorskip("onnxruntime")

AVERAGE: dict[str, Any] = {
    "kernel": (2, 2),
    "stride": (2, 2),
    "multiplier": Multiplier(
        accu_right_shift=np.zeros(1, np.int32),
        output_scale=np.full(1, 2**13, np.int32),
        output_right_shift=np.full(1, 15, np.int32),
    ),
}
OPERATORS = [(name, march) for march in March for name in KERNELS if name not in march_row(march).refused_kernels]


def session(path: Path, *, optimized: bool = False) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    levels = runtime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    if optimized:  # without it, kernels of int8 saturate on x86 processors without VNNI
        options.add_session_config_entry("session.x64quantprecision", "1")
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_onnx(program: Program, inputs: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    export_program_to_onnx(program, path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    made = session(path)
    given = {each.name: inputs[each.name] for each in made.get_inputs()}
    return dict(zip([each.name for each in made.get_outputs()], made.run(None, given), strict=True))


@pytest.mark.parametrize(("name", "march"), OPERATORS, ids=str)
def test_operator_gives_the_same_integers(name: str, march: March, tmp_path: Path) -> None:
    for seed in range(4):
        kernel, inputs = random_case(name, march, np.random.default_rng(seed))
        program, named = program_of(kernel, march, inputs)
        got = run_onnx(program, named, tmp_path / "case.onnx")
        assert_integers_equal(got["out"], run(program, named)["out"], what=f"{name}, seed {seed}")


@pytest.mark.parametrize("name", ["resnet", "unet", "squeeze_excite"])
def test_net_gives_the_same_integers(name: str, tmp_path: Path) -> None:
    case = NETS[name]
    observed = prepared(case.model(), "bayes")
    calibrate(observed, case.shapes)
    with march_scope("bayes"):
        program = lower(convert_fx(observed), real_inputs(case.shapes, 0))
    (x,) = real_inputs(case.shapes, 9)
    steps = quantize_inputs(program, x.permute(0, 2, 3, 1).numpy())
    got, expected = run_onnx(program, steps, tmp_path / "net.onnx"), run(program, steps)
    for output, value in expected.items():
        assert_integers_equal(got[output], value, what=output)


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "unet", "squeeze_excite", "mlp", "conv3d"])
def test_optimized_qdq_model_stays_within_a_step_of_the_model_under_qat(name: str, tmp_path: Path) -> None:
    case = NETS[name]
    observed = prepared(case.model(), "bayes")
    calibrate(observed, case.shapes)
    (x,) = real_inputs(case.shapes, 9)
    with march_scope("bayes"):
        export_to_onnx(observed, x, tmp_path / "qat.onnx")
    results = []
    for optimized in (False, True):
        made = session(tmp_path / "qat.onnx", optimized=optimized)
        results.append(made.run(None, {made.get_inputs()[0].name: x.numpy()})[0])
    plain, optimized_result = results
    expected = observed(x).detach().numpy()
    assert np.abs(plain - expected).max() <= 0.05 * np.abs(expected).max()
    assert np.abs(optimized_result - plain).max() <= 0.02 * np.abs(expected).max()


def test_layers_share_no_weights_and_no_zero_points(tmp_path: Path) -> None:
    """ONNX Runtime changes them in place when it makes uint8 of them."""
    case = NETS["resnet"]
    observed = prepared(case.model(), "bayes")
    calibrate(observed, case.shapes)
    with march_scope("bayes"):
        export_to_onnx(observed, real_inputs(case.shapes, 0), tmp_path / "qat.onnx")
    graph = onnx.load(tmp_path / "qat.onnx").graph
    int8 = {each.name for each in graph.initializer if each.data_type == onnx.TensorProto.INT8 and each.dims}
    read = [name for node in graph.node for name in node.input if name in int8]
    assert len(read) == len(set(read))


def test_float_model_is_exported_in_the_opset_that_is_asked_for(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), torch.randn(1, 3, 8, 8)
    export_to_onnx(model, x, tmp_path / "float.onnx", input_names=["image"], output_names=["features"])
    loaded = onnx.load(tmp_path / "float.onnx")
    assert [each.version for each in loaded.opset_import] == [11]
    (got,) = session(tmp_path / "float.onnx").run(["features"], {"image": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), model(x).detach())


def test_model_under_qat_is_within_a_few_steps(tmp_path: Path) -> None:
    case = NETS["resnet"]
    observed = prepared(case.model(), "bayes")
    calibrate(observed, case.shapes)
    (x,) = real_inputs(case.shapes, 9)
    with march_scope("bayes"):
        export_to_onnx(observed, x, tmp_path / "qat.onnx")
    made = session(tmp_path / "qat.onnx")
    (got,) = made.run(None, {made.get_inputs()[0].name: x.numpy()})
    expected = observed(x).detach()
    assert float((torch.from_numpy(got) - expected).abs().max()) <= 0.05 * float(expected.abs().max())


def test_input_may_be_called_like_a_constant(tmp_path: Path) -> None:
    builder = ProgramBuilder("bayes")
    x = builder.input("constant", (1, 4, 4, 3), "qint8", 0.5)
    builder.output(builder.add(AvgPool2d(**AVERAGE), x, name="pool", scale=0.5), "out")
    program = builder.build()
    for form in ("integer", "qdq"):
        export_program_to_onnx(program, tmp_path / "named.onnx", form=form)
        onnx.checker.check_model(onnx.load(tmp_path / "named.onnx"), full_check=True)


def test_eager_model_under_qat_is_exported_too(tmp_path: Path) -> None:
    model: Any = nn.Sequential(QuantStub(), nn.Conv2d(3, 4, 3), DeQuantStub()).eval()
    x = torch.randn(1, 3, 8, 8)
    with march_scope("bayes"):
        model.qconfig = default_qat_8bit_fake_quant_qconfig
        observed = prepare_qat(model).eval()
        set_fake_quantize(observed, FakeQuantState.CALIBRATION)
        observed(x)
        export_to_onnx(observed, x, tmp_path / "eager.onnx")
    assert "DequantizeLinear" in [node.op_type for node in onnx.load(tmp_path / "eager.onnx").graph.node]
