"""What torch captures of a converted model gives the same integers, and becomes the same Program."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bpu_deploy_tools import LoweringError, load_traced, lower, program_of, save_traced, to_device, torch_outputs
from bpu_deploy_tools.lowering.layout import channels_last
from bpu_kernels import March, Program, quantize_inputs, run
from bpu_qat_nn import QuantizedGraphModule, convert_fx, plain_module
from bpu_qat_nn.testing import CASES, NETS, calibrate, prepared, real_inputs
from bpu_qconfig import march_scope

SHAPES = ((1, 3, 32, 32),)
BAYES = March.BAYES


def converted(name: str, march: str = "bayes-e") -> QuantizedGraphModule:
    case = NETS[name]
    observed = prepared(case.model(), march)
    calibrate(observed, case.shapes)
    with march_scope(march):
        return convert_fx(observed)


def traced(model: QuantizedGraphModule, x: Tensor) -> Any:
    """Trace, save and load."""
    content = io.BytesIO()
    save_traced(torch.jit.trace(model, x), content)  # type: ignore[no-untyped-call]
    content.seek(0)
    return load_traced(content)


def exported(model: QuantizedGraphModule, x: Tensor) -> Any:
    return torch.export.export(plain_module(model, x), (x,))


def callable_of(captured: Any) -> Any:
    return captured.module() if isinstance(captured, torch.export.ExportedProgram) else captured


CAPTURES: dict[str, Callable[[QuantizedGraphModule, Tensor], Any]] = {
    "traced": traced,
    "plain": plain_module,
    "exported": exported,
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("capture", CAPTURES)
@pytest.mark.parametrize("name", ["resnet", "unet"])
def test_captured_model_gives_the_integers_and_the_program_of_the_model(name: str, capture: str) -> None:
    model = converted(name)
    (example,), (other,) = real_inputs(SHAPES, 1), real_inputs(SHAPES, 2)
    with torch.no_grad():
        captured = CAPTURES[capture](model, example)
        assert torch.equal(callable_of(captured)(other), model(other))
    got, expected = program_of(captured, example), lower(model, example)
    assert kernels(got) == kernels(expected)
    assert [each.spec for each in got.inputs] == [each.spec for each in expected.inputs]
    assert [each.name for each in got.inputs] == ["x"]


EXACT = [name for name, case in CASES.items() if BAYES in case.marches and len(case.shapes) == 1 and 8 in case.bits]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", EXACT)
def test_program_of_a_captured_operator_gives_its_values(name: str) -> None:
    """Values, not integers alone: a change of scale without an operator of its own must not be lost."""
    case = CASES[name]
    observed = prepared(case.model(), BAYES)
    calibrate(observed, case.shapes)
    with march_scope(BAYES):
        model = convert_fx(observed)
    (x,) = real_inputs(case.shapes, 3)
    program = program_of(plain_module(model, x), x)
    stored = x.permute(channels_last(x.dim())).numpy()
    outputs = torch_outputs(program, run(program, quantize_inputs(program, stored)))
    expected = model(x)
    several = list(expected) if isinstance(expected, (tuple, list)) else [expected]
    for got, wanted in zip(outputs.values(), several, strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_writing_over_a_view_is_refused() -> None:
    model, (x,) = converted("mlp"), real_inputs(((4, 20),), 1)

    class Doubles(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain = plain_module(model, x)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.plain(x)
            y.view(-1).mul_(2)
            return y

    with torch.no_grad():
        captured = torch.jit.trace(Doubles(), x)  # type: ignore[no-untyped-call]
    with pytest.raises(LoweringError, match="mul_: it writes over a tensor"):
        program_of(captured, x)


def kernels(program: Program) -> list[str]:
    return [node.kernel.name for node in program.nodes]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_traced_model_moves_whole_to_a_device() -> None:
    model, (x,) = converted("mlp"), real_inputs(((4, 20),), 1)
    with torch.no_grad():
        moved = to_device(torch.jit.trace(model, x), "cpu")  # type: ignore[no-untyped-call]
        assert torch.equal(moved(x), model(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_traced_float_model_is_refused_with_the_way_out() -> None:
    x = torch.zeros(1, 4)
    with pytest.raises(LoweringError, match="capture the model that convert_fx returned"):
        program_of(torch.jit.trace(torch.nn.Linear(4, 2), x), x)  # type: ignore[no-untyped-call]
