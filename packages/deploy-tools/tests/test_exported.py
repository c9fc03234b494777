"""torch.export takes converted models as they are: the same integers, saved and loaded too, and the same Program."""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bpu_deploy_tools import insert_yuv_input, program_of, torch_outputs
from bpu_deploy_tools.lowering.layout import channels_last
from bpu_kernels import quantize_inputs, run
from bpu_qat_nn import (
    DeQuantStub,
    QTensor,
    QuantizedGraphModule,
    QuantStub,
    convert,
    convert_fx,
    plain_module,
    prepare_qat,
)
from bpu_qat_nn.testing import CASES, NETS, calibrate, prepared, real_inputs
from bpu_qconfig import default_qat_8bit_fake_quant_qconfig, march_scope

pytestmark = [
    pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="torch 2.6 does not tell that it exports"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning"),  # torch 2.9 at its own loading
]
STRICT = ("conv2d_1x1", "linear_add_relu", "maximum", "topk_values", "eq_number", "resnet", "fpn", "yolo")
"""Cases that are followed by dynamo too, which takes seconds; the operators that it then meets are the same."""


def converted(case: Any) -> QuantizedGraphModule:
    march = case.marches[-1]
    observed = prepared(case.model(), march, max(getattr(case, "bits", (8,))))
    calibrate(observed, case.shapes)
    with march_scope(march):
        return convert_fx(observed)


def loaded(exported: Any) -> Any:
    content = io.BytesIO()
    torch.export.save(exported, content)
    content.seek(0)
    return torch.export.load(content)


class OfIntegers(nn.Module):
    """A parameter that is no floating-point number."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = nn.Parameter(torch.ones(2).bool(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask


@functools.cache
def loads_parameters_of_integers() -> bool:
    """Whether torch loads what it saved of them, which 2.9 does not."""
    try:
        loaded(torch.export.export(OfIntegers(), (torch.ones(2),)))
    except RuntimeError:
        return False
    return True


class Adding(torch.fx.GraphModule):
    """A graph module that is called otherwise than its graph says, as converted models are while dynamo looks on."""

    def _call_impl(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] + 1.0


@functools.cache
def calls_inner_graph_modules() -> bool:
    """Whether dynamo calls a graph module inside another module as Python does; that of 2.9 follows its graph."""
    inner = Adding(nn.Module(), torch.fx.symbolic_trace(nn.Identity()).graph)
    exported = torch.export.export(nn.Sequential(inner), (torch.ones(1),), strict=True)
    return torch.equal(exported.module()(torch.ones(1)), torch.full((1,), 2.0))


def values(result: Any) -> list[Tensor]:
    return [leaf.int_repr() if isinstance(leaf, QTensor) else leaf for leaf in tree_leaves(result)]


def assert_same(first: Any, second: Any) -> None:
    for got, expected in zip(values(first), values(second), strict=True):
        assert torch.equal(got, expected)


def assert_exports(model: nn.Module, shapes: Any, *, strict: bool, open_batch: bool = False) -> Any:
    """Assert that what was exported, saved and loaded gives a model's integers on other inputs; return it.

    With an open batch it is exported with two images and run on three.
    """
    if strict:
        torch.compiler.reset()  # of what other tests compiled: dynamo counts it against a limit
    first, second = (resized(shapes, size) if open_batch else shapes for size in (2, 3))
    dynamic = tuple({0: torch.export.Dim("n")} for _ in shapes) if open_batch else None
    exported = loaded(torch.export.export(model, real_inputs(first, 1), dynamic_shapes=dynamic, strict=strict))
    other = real_inputs(second, 2)
    assert_same(exported.module()(*other), model(*other))
    return exported


def resized(shapes: Any, batch: int) -> Any:
    return tuple((batch, *shape[1:]) for shape in shapes)


def assert_program(exported: Any, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Assert that the Program of an exported model gives the values of the model."""
    program = program_of(exported, inputs)
    stored = [np.ascontiguousarray(x.permute(channels_last(x.dim())).numpy()) for x in inputs]
    given = quantize_inputs(program, {spec.name: x for spec, x in zip(program.inputs, stored, strict=True)})
    outputs = torch_outputs(program, run(program, given))
    for got, expected in zip(outputs.values(), tree_leaves(model(*inputs)), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("name", [*CASES, *NETS])
def test_exported_model_is_the_model_and_its_program(name: str) -> None:
    case: Any = NETS.get(name) or CASES[name]
    model = converted(case)
    if not (all(each.is_floating_point() for each in model.parameters()) or loads_parameters_of_integers()):
        pytest.skip("this torch does not load exported parameters that are no floating-point numbers")
    open_batch = name in NETS or case.open_batch
    exported = assert_exports(model, case.shapes, strict=False, open_batch=open_batch)
    assert_program(exported, model, real_inputs(case.shapes, 3))


@pytest.mark.parametrize("name", STRICT)
def test_strict_export_follows_the_model_too(name: str) -> None:
    case: Any = NETS.get(name) or CASES[name]
    model = converted(case)
    exported = assert_exports(model, case.shapes, strict=True)
    assert_program(exported, model, real_inputs(case.shapes, 3))


@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
def test_batch_of_one_or_many_goes_through_an_open_export(strict: bool) -> None:
    model = converted(NETS["resnet"])
    batches = {size: real_inputs(((size, 3, 32, 32),), 1)[0] for size in (1, 2, 5)}
    exported = torch.export.export(model, (batches[2],), dynamic_shapes=({0: torch.export.Dim("n")},), strict=strict)
    for x in batches.values():
        assert torch.equal(exported.module()(x), model(x))


class Surrounded(nn.Module):
    """A converted model between float layers, called twice, in a result of several tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.before, self.model = nn.Conv2d(3, 3, 1), model

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"scores": self.model(torch.sigmoid(self.before(x))), "others": [self.model(x), (x + 1.0,)]}


@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
def test_model_inside_another_is_exported_with_it(strict: bool) -> None:
    case = NETS["resnet"]
    model = Surrounded(converted(case)).eval()
    if strict and not calls_inner_graph_modules():
        with pytest.raises(Exception, match="takes it with strict=False"):
            torch.export.export(model, real_inputs(case.shapes, 1), strict=True)
        return
    assert_exports(model, case.shapes, strict=strict)


class Ends(nn.Module):
    """Ends without a DeQuantStub, in two results."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.conv = QuantStub(), nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(self.quant(x))
        return y, y[:, :2]


@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
def test_quantized_results_become_their_integers(strict: bool) -> None:
    shapes = ((1, 3, 8, 8),)
    observed = prepared(Ends().eval(), "bayes")
    calibrate(observed, shapes)
    assert_exports(convert_fx(observed), shapes, strict=strict)


@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
def test_yuv_input_that_was_inserted_is_exported(strict: bool) -> None:
    case = NETS["resnet"]
    model = converted(case)
    with march_scope(case.marches[-1]):
        insert_yuv_input(model, mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))
        assert_exports(model, case.shapes, strict=strict)


def test_plain_module_is_exported_with_each_weight_once() -> None:
    model, inputs = converted(NETS["resnet"]), real_inputs(NETS["resnet"].shapes, 1)
    weights = sum(each.numel() for name, each in model.state_dict().items() if name.endswith(".weight"))
    exported = loaded(torch.export.export(plain_module(model, *inputs), inputs))
    stored = (*exported.state_dict.values(), *exported.constants.values())
    assert sum(each.numel() for each in stored if each.dtype is torch.int8) == weights
    assert torch.equal(exported.module()(*inputs), model(*inputs))


def test_scale_edited_before_the_export_counts() -> None:
    model, (x,) = converted(NETS["mlp"]), real_inputs(NETS["mlp"].shapes, 1)
    before = torch.export.export(model, (x,))
    model.quant.scale.fill_(0.5)
    model.get_submodule("quant").register_buffer("scale", torch.tensor([0.25]))
    after = torch.export.export(model, (x,))
    assert torch.equal(after.module()(x), model(x))
    assert not torch.equal(before.module()(x), model(x))


def test_export_leaves_the_model_as_it_was() -> None:
    case = NETS["resnet"]
    model, (x,) = converted(case), real_inputs(case.shapes, 1)
    state, expected = {name: value.clone() for name, value in model.state_dict().items()}, model(x)
    torch.export.export(model, (x,))
    assert torch.equal(model(x), expected)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


class Eager(nn.Module):
    """A model of the flow without torch.fx."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.conv, self.dequant = QuantStub(), nn.Conv2d(3, 8, 3), DeQuantStub()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dequant(self.conv(self.quant(x)))
        return y


def test_eager_model_is_exported_without_dynamo() -> None:
    shapes = ((1, 3, 8, 8),)
    model: Any = Eager().eval()
    model.qconfig = default_qat_8bit_fake_quant_qconfig
    with march_scope("bayes"):
        observed: Any = prepare_qat(model)
        calibrate(observed, shapes)
        made: Any = convert(observed)
    exported = assert_exports(made, shapes, strict=False)
    assert_program(exported, made, real_inputs(shapes, 3))
    with pytest.raises(Exception, match="takes it with strict=False"):
        torch.export.export(made, real_inputs(shapes, 1), strict=True)
