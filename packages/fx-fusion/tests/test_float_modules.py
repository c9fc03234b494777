"""Float modules equal the functions they stand for, with sizes known when traced or computed at run time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bpu_fx_fusion
from bpu_fx_fusion import ChannelShuffle, Clamp, FloatFunctional, Interpolate, Pad, RoIAlign, Unary, UsageError, fuse_fx

UNARY = {
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardLog": torch.log,
    "Reciprocal": torch.reciprocal,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
}


class Calls(nn.Module):
    def __init__(self, function: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.function(x, y)


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("form", ["function", "method"])
def test_elementwise_functions_have_a_module_each(name: str, form: str) -> None:
    function = UNARY[name]
    called: Any = function if form == "function" else lambda x: getattr(x, function.__name__)()
    gm = fuse_fx(Calls(lambda x, y: called(x)))
    x = torch.rand(5) + (1 if name == "Acosh" else 0)

    module = gm.get_submodule(f"_generated_{function.__name__}_0")

    assert type(module) is getattr(bpu_fx_fusion, name)
    assert isinstance(module, Unary)
    torch.testing.assert_close(gm(x, x), function(x), rtol=0, atol=0)


CASES: dict[str, tuple[Callable[[Tensor, Tensor], Any], type[nn.Module], set[str]]] = {
    "interpolate_scale": (lambda x, y: F.interpolate(x, scale_factor=2), Interpolate, set()),
    "interpolate_bilinear": (
        lambda x, y: F.interpolate(x, size=(3, 5), mode="bilinear", align_corners=True),
        Interpolate,
        set(),
    ),
    "interpolate_scales": (
        lambda x, y: F.interpolate(x, scale_factor=(2.0, 1.5), mode="bilinear", recompute_scale_factor=True),
        Interpolate,
        set(),
    ),
    "interpolate_size_of": (lambda x, y: F.interpolate(x, size=y.shape[2:]), Interpolate, {"size"}),
    "interpolate_size_mixed": (lambda x, y: F.interpolate(x, size=(y.shape[2], 4)), Interpolate, {"size"}),
    "pad": (lambda x, y: F.pad(x, (1, 2)), Pad, set()),
    "pad_value": (lambda x, y: F.pad(x, (1, 2, 0, 1), value=3.0), Pad, set()),
    "pad_replicate": (lambda x, y: F.pad(x, (1, 1, 1, 1), "replicate"), Pad, set()),
    "pad_to": (lambda x, y: F.pad(x, (0, y.shape[3] - x.shape[3])), Pad, {"pad"}),
    "clamp": (lambda x, y: torch.clamp(x, 0.2, 0.5), Clamp, set()),
    "clamp_min": (lambda x, y: x.clamp(min=0.5), Clamp, set()),
    "clip": (lambda x, y: torch.clip(x, max=0.5), Clamp, set()),
    "clamp_by_a_size": (lambda x, y: torch.clamp(x, max=y.shape[3]), Clamp, {"max"}),
    "pow": (lambda x, y: x**3, bpu_fx_fusion.Pow, set()),
    "torch_pow": (lambda x, y: torch.pow(x, 0.5), bpu_fx_fusion.Pow, set()),
    "square": (lambda x, y: torch.square(x), bpu_fx_fusion.Pow, set()),
}


@pytest.mark.parametrize("case", CASES)
def test_functions_equal_their_module(case: str) -> None:
    function, module_type, at_call = CASES[case]
    model = Calls(function)

    gm = fuse_fx(model)

    node = next(n for n in gm.graph.nodes if n.op == "call_module")
    assert type(gm.get_submodule(str(node.target))) is module_type
    assert node.kwargs.keys() == at_call
    x, y = torch.rand(1, 2, 4, 4), torch.rand(1, 2, 6, 7)
    torch.testing.assert_close(gm(x, y), model(x, y), rtol=0, atol=0)


def test_tensor_as_a_limit_becomes_the_larger_or_smaller_of_two() -> None:
    model = Calls(lambda x, y: torch.clamp(x, min=y, max=y + 0.25))
    gm = fuse_fx(model)

    assert [node.target for node in gm.graph.nodes if node.op == "call_method"] == ["add_scalar", "maximum", "minimum"]
    x, y = torch.rand(2, 1, 2, 4, 4)
    torch.testing.assert_close(gm(x, y), model(x, y), rtol=0, atol=0)


def test_upsample_functions_become_interpolate() -> None:
    with pytest.warns(UserWarning, match="deprecated"):
        gm = fuse_fx(Calls(lambda x, y: F.upsample(x, scale_factor=2)))

    assert isinstance(gm.get_submodule("_generated_interpolate_0"), Interpolate)


@pytest.mark.parametrize(
    ("module", "shown"),
    [
        (Interpolate(scale_factor=2, mode="nearest"), "Interpolate(scale_factor=2, mode='nearest')"),
        (Pad((1, 1)), "Pad(pad=(1, 1), mode='constant', value=None)"),
        (Clamp(max=1.0), "Clamp(min=None, max=1.0)"),
        (bpu_fx_fusion.Pow(2), "Pow(exponent=2)"),
    ],
    ids=["interpolate", "pad", "clamp", "pow"],
)
def test_modules_show_their_arguments(module: nn.Module, shown: str) -> None:
    assert repr(module) == shown


FUNCTIONAL: dict[str, tuple[tuple[Any, ...], Callable[..., Tensor]]] = {
    "add": (("x", "y"), torch.add),
    "add_scalar": (("x", 2.0), torch.add),
    "sub": (("x", "y"), torch.sub),
    "mul": (("x", "y"), torch.mul),
    "mul_scalar": (("x", 2.0), torch.mul),
    "matmul": (("x", "y"), torch.matmul),
    "maximum": (("x", "y"), torch.maximum),
    "minimum": (("x", "y"), torch.minimum),
    "sum": (("x", 1, True), torch.sum),
    "mean": (("x", (0, 1)), torch.mean),
    "add_relu": (("x", "y"), lambda x, y: F.relu(x + y)),
    "cat": ((["x", "y"], 1), torch.cat),
}


@pytest.mark.parametrize("method", FUNCTIONAL)
def test_float_functional_computes_as_torch(method: str) -> None:
    arguments, function = FUNCTIONAL[method]
    tensors = {"x": torch.randn(3, 3), "y": torch.randn(3, 3)}

    def resolve(argument: Any) -> Any:
        if isinstance(argument, list):
            return [resolve(a) for a in argument]
        return tensors[argument] if isinstance(argument, str) else argument

    values = [resolve(a) for a in arguments]
    torch.testing.assert_close(getattr(FloatFunctional(), method)(*values), function(*values), rtol=0, atol=0)


def test_channel_shuffle_puts_channels_in_the_given_order() -> None:
    x = torch.arange(12.0).reshape(1, 4, 3)
    assert torch.equal(ChannelShuffle([2, 0, 3, 1])(x), x[:, [2, 0, 3, 1]])


@pytest.mark.parametrize("index", [[0, 0, 1], [1, 2, 3], 4], ids=["twice", "missing", "groups"])
def test_channel_shuffle_takes_every_channel_once(index: Any) -> None:
    with pytest.raises(UsageError, match="every channel once"):
        ChannelShuffle(index)


def test_boxes_with_the_number_of_their_image_are_pooled_as_those_of_lists() -> None:
    torch.manual_seed(0)
    x, corner = torch.randn(3, 4, 12, 14), torch.rand(9, 2) * 8
    boxes, align = torch.cat([corner, corner + 1 + torch.rand(9, 2) * 10], 1), RoIAlign((3, 2), 0.5, 2)
    numbers = torch.arange(9) % 3
    found = align(x, torch.cat([numbers[:, None].float(), boxes], 1))
    for image in range(3):
        assert torch.equal(found[numbers == image], align(x[image : image + 1], [boxes[numbers == image]]))


def test_sampling_that_follows_the_box_is_refused_with_a_number_to_take() -> None:
    with pytest.raises(UsageError, match=r"has no integer form.*sampling_ratio=2"):
        RoIAlign(3, 0.5, -1)
