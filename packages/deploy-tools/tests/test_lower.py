"""Lowering: layouts cost no data movement where none is needed, and what cannot be lowered is refused by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_deploy_tools import LoweringError, lower, torch_outputs
from bpu_deploy_tools.lowering.layout import channels_last, order_after_squeeze, permuted_axes, windows
from bpu_fx_fusion import wrap
from bpu_kernels import Program, UnsupportedError, quantize_inputs, run
from bpu_qat_nn import DeQuantStub, QuantizedGraphModule, QuantStub, convert_fx
from bpu_qat_nn.testing import calibrate, prepared, real_inputs
from bpu_qconfig import march_scope

MAP = (1, 8, 6, 10)


class Model(nn.Module):
    def __init__(self, body: Callable[[Tensor], Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.quant, self.dequant, self.body = QuantStub(), DeQuantStub(), body
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        for layer in self.layers:
            x = layer(x)
        y: Tensor = self.dequant(self.body(x))
        return y


def converted(model: nn.Module, march: str = "bayes", shape: tuple[int, ...] = MAP) -> QuantizedGraphModule:
    observed = prepared(model.eval(), march)
    calibrate(observed, (shape,))
    with march_scope(march):
        return convert_fx(observed)


def operators(program: Program) -> list[str]:
    return [node.kernel.name for node in program.nodes]


@pytest.mark.parametrize(
    ("march", "expected"),
    [("bayes", ["conv2d", "reshape", "linear"]), ("bernoulli2", ["conv2d", "conv2d", "reshape"])],
)
def test_flatten_before_linear_sorts_the_weights_instead_of_the_features(march: str, expected: list[str]) -> None:
    """Bernoulli2 cannot flatten a map: there the layer is a convolution with a kernel of the map's size."""
    model = converted(Model(lambda x: x, nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(128, 5)), march)
    assert operators(lower(model, real_inputs((MAP,), 0))) == expected


def test_linear_between_permutes_moves_nothing() -> None:
    body = nn.Linear(8, 8)
    model = Model(lambda x: body(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.Conv2d(8, 8, 1))
    model.linear = body
    program = lower(converted(model), real_inputs((MAP,), 0))
    assert operators(program) == ["conv2d", "linear"]
    assert program.metadata["order.output"] == "0 2 3 1"


def test_transpose_that_a_march_lacks_is_refused_with_the_node() -> None:
    model = converted(Model(lambda x: x.permute(0, 2, 3, 1) * 2.0, nn.ReLU()), "bernoulli2")
    lower(model, real_inputs((MAP,), 0))  # channels-last is how the map lies, so this one is free
    model = converted(Model(lambda x: x.reshape(1, 8, 60) * 2.0, nn.ReLU()), "bernoulli2")
    with pytest.raises(UnsupportedError, match=r"(?s)reshape.*transpose"):
        lower(model, real_inputs((MAP,), 0))


def test_real_operator_behind_the_dequant_stub_is_refused_by_name() -> None:
    class Tail(Model):
        def forward(self, x: Tensor) -> Tensor:
            return F.softmax(super().forward(x), dim=1)

    model = converted(Tail(lambda x: x, nn.ReLU()))
    with pytest.raises(LoweringError, match=r"softmax.*works on a real tensor"):
        lower(model, real_inputs((MAP,), 0))


def test_constant_behind_a_quant_stub_becomes_a_constant_of_the_program() -> None:
    class Positions(Model):
        def __init__(self) -> None:
            super().__init__(lambda x: x)
            self.quant_positions, self.positions = QuantStub(), nn.Parameter(torch.randn(1, *MAP[1:]))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.dequant(self.quant(x) + self.quant_positions(self.positions))
            return y

    batch = (3, *MAP[1:])
    model = converted(Positions(), shape=batch)
    (x,) = real_inputs((batch,), 0)
    program = lower(model, x)
    assert operators(program) == ["constant", "add"], "stored as it is needed: nothing moves"
    steps = quantize_inputs(program, x.permute(0, 2, 3, 1).numpy())
    assert torch.equal(torch_outputs(program, run(program, steps))["output"], model(x))


def test_movements_behind_the_dequant_stub_belong_to_the_program() -> None:
    class Flattening(Model):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            y = super().forward(x)
            return y.flatten(1), y[:, 2:4]

    model = converted(Flattening(lambda x: x * 2.0, nn.ReLU()))
    (x,) = real_inputs((MAP,), 0)
    program = lower(model, x)
    steps = quantize_inputs(program, x.permute(0, 2, 3, 1).numpy())
    for got, expected in zip(torch_outputs(program, run(program, steps)).values(), model(x), strict=True):
        assert torch.equal(got, expected)


def test_model_that_is_not_converted_is_refused() -> None:
    with pytest.raises(LoweringError, match="expected the model that convert_fx or convert returned"):
        lower(prepared(Model(lambda x: x, nn.ReLU()), "bayes"), real_inputs((MAP,), 0))


def test_source_of_an_input_that_is_not_there_is_refused() -> None:
    model = converted(Model(lambda x: x, nn.ReLU()))
    with pytest.raises(LoweringError, match="input_source names 'imgae'; the model has the inputs x"):
        lower(model, real_inputs((MAP,), 0), input_source={"imgae": "pyramid"})


def test_repeated_use_of_one_transpose_is_recorded_once() -> None:
    model = converted(Model(lambda x: x.reshape(1, 8, 60) + x.reshape(1, 8, 60) * 0.5, nn.ReLU()))
    assert operators(lower(model, real_inputs((MAP,), 0))).count("transpose") == 1


QUESTIONS: dict[str, Callable[[Tensor], int]] = {
    "ndim": lambda x: x.ndim,
    "dim": lambda x: x.dim(),
    "ndimension": lambda x: x.ndimension(),
    "size": lambda x: x.size(2) - 2,
    "numel": lambda x: x.numel() // 120,
    "nelement": lambda x: x.nelement() // 120,
    "is_complex": lambda x: 4 - int(x.is_complex()),
    "device": lambda x: 4 if x.device == torch.device("cpu") else 0,
    "is_cuda": lambda x: 4 - x.is_cuda,
    "get_device": lambda x: 5 + x.get_device(),
    "len": lambda x: 3 + len(x),
}
"""What a forward may ask about a tensor; of MAP each of these is 4."""


@wrap()
def asked(x: Tensor, question: str) -> Tensor:
    return x.narrow(1, QUESTIONS[question](x), 2)


@pytest.mark.parametrize("question", QUESTIONS)
def test_question_about_a_tensor_has_the_same_answer_when_it_is_lowered(question: str) -> None:
    (x,) = real_inputs((MAP,), 0)
    model = converted(Model(lambda x: asked(x, question), nn.Conv2d(8, 8, 1)))
    program = lower(model, x)
    steps = quantize_inputs(program, x.permute(0, 2, 3, 1).numpy())
    assert torch.equal(torch_outputs(program, run(program, steps))["output"], model(x))


@wrap()
def by_its_memory(x: Tensor) -> Tensor:
    return x.narrow(1, int(x.is_contiguous()), 2)


def test_question_that_only_a_run_can_answer_is_refused_with_the_place_and_a_way_out() -> None:
    model = converted(Model(by_its_memory, nn.ReLU()))
    with pytest.raises(
        LoweringError, match=r"by_its_memory: is_contiguous of a quantized tensor is not known.*Take it out"
    ):
        lower(model, real_inputs((MAP,), 0))


def test_unused_work_is_left_out() -> None:
    model = converted(Model(lambda x: torch.split(x, 4, 1)[1], nn.ReLU()))
    assert operators(lower(model, real_inputs((MAP,), 0))) == ["relu", "slice"]


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
def test_permuted_axes_are_found_from_strides(rank: int) -> None:
    axes = tuple(reversed(range(rank)))
    assert permuted_axes(rank, lambda x: x.permute(axes)) == axes


@pytest.mark.parametrize(
    ("shape", "new_shape", "order"),
    [
        ((2, 8, 1, 1), (2, 8), (0, 1)),
        ((2, 8), (2, 8, 1, 1), (0, 2, 3, 1)),
        ((1, 8, 6, 10), (8, 6, 10), (1, 2, 0)),
        ((2, 8, 6, 10), (2, 8, 60), None),
    ],
)
def test_orders_after_squeezing(shape: tuple[int, ...], new_shape: tuple[int, ...], order: object) -> None:
    assert order_after_squeeze(shape, channels_last(len(shape)), new_shape) == order


def test_windows_are_those_of_torch() -> None:
    shape = (3, 7, 5, 4)
    x = torch.arange(420).reshape(shape)
    for move in (
        lambda t: t[:, 2:6, ::2],
        lambda t: t[1],
        lambda t: t[..., -1],
        lambda t: t[:, :, 1:2, None],
        lambda t: t.narrow(2, 1, 3),
        lambda t: torch.split(t, 3, 1),
        lambda t: t.unbind(0),
    ):
        parts = move(x)
        expected = parts if isinstance(parts, (tuple, list)) else [parts]
        found = windows(shape, move)
        assert found is not None
        for window, part in zip(found, expected, strict=True):
            cut = x[tuple(map(slice, window.start, window.stop, window.step))]
            assert torch.equal(cut.reshape(window.shape), part)


def test_picking_by_a_list_is_no_window() -> None:
    assert windows((4, 4), lambda t: t[[0, 2]]) is None
