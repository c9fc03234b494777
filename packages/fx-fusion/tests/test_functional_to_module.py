"""Functions and operators become modules; arithmetic on sizes does not."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_fx_fusion import (
    RECIPES,
    Abs,
    Amax,
    FloatFunctional,
    Gather,
    Ge,
    GraphModuleWithAttr,
    GridSample,
    Gt,
    Lt,
    MaskedFill,
    TopIndices,
    Where,
    functional_to_module,
    fuse_fx,
    trace,
    wrap,
)

Function = Callable[[Tensor, Tensor], Any]


class Calls(nn.Module):
    """A model whose forward is one function of two tensors of shape (2, 4, 6, 6)."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.function(x, y)


def inputs() -> tuple[Tensor, Tensor]:
    return torch.rand(2, 4, 6, 6) + 0.1, torch.rand(2, 4, 6, 6) + 0.1


def replaced(model: nn.Module) -> GraphModuleWithAttr:
    gm = trace(model)
    functional_to_module(gm)
    gm.graph.lint()
    return gm


def calls(gm: GraphModuleWithAttr) -> list[str]:
    """Return what is called: `name.method` for methods of modules, `name` for modules, and names of functions."""
    found = []
    for node in gm.graph.nodes:
        if node.op == "call_module":
            found.append(str(node.target))
        elif node.op == "call_method":
            first = node.args[0]
            found.append(f"{first.target}.{node.target}" if first.op == "get_attr" else f"Tensor.{node.target}")
        elif node.op == "call_function":
            found.append(node.target.__name__)
    return found


def augmented(x: Tensor, y: Tensor) -> Tensor:
    x += y
    return x


FUNCTIONAL: dict[str, tuple[Function, list[str]]] = {
    "operator_add": (lambda x, y: x + y, ["_generated_add_0.add"]),
    "torch_add": (lambda x, y: torch.add(x, y), ["_generated_add_0.add"]),
    "torch_add_keywords": (lambda x, y: torch.add(input=x, other=y), ["_generated_add_0.add"]),
    "method_add": (lambda x, y: x.add(y), ["_generated_add_0.add"]),
    "method_add_": (lambda x, y: (x * 1).add_(y), ["_generated_mul_scalar_0.mul_scalar", "_generated_add_0.add"]),
    "augmented_add": (augmented, ["_generated_add_0.add"]),
    "alpha_1": (lambda x, y: torch.add(x, y, alpha=1), ["_generated_add_0.add"]),
    "twice": (lambda x, y: x + y + y, ["_generated_add_0.add", "_generated_add_1.add"]),
    "sub": (lambda x, y: x - y, ["_generated_sub_0.sub"]),
    "torch_sub": (lambda x, y: torch.sub(x, y), ["_generated_sub_0.sub"]),
    "method_sub": (lambda x, y: x.sub(y), ["_generated_sub_0.sub"]),
    "mul": (lambda x, y: x * y, ["_generated_mul_0.mul"]),
    "torch_mul": (lambda x, y: torch.mul(x, y), ["_generated_mul_0.mul"]),
    "method_mul": (lambda x, y: x.mul(y), ["_generated_mul_0.mul"]),
    "cat": (lambda x, y: torch.cat([x, y], dim=1), ["_generated_cat_0.cat"]),
    "cat_positional": (lambda x, y: torch.cat((x, y), 1), ["_generated_cat_0.cat"]),
    "cat_axis": (lambda x, y: torch.cat((x, y), axis=1), ["_generated_cat_0.cat"]),  # type: ignore[call-arg]
    "matmul": (lambda x, y: torch.matmul(x, y), ["_generated_matmul_0.matmul"]),
    "operator_matmul": (lambda x, y: x @ y, ["_generated_matmul_0.matmul"]),
    "method_matmul": (lambda x, y: x.matmul(y), ["_generated_matmul_0.matmul"]),
    "sum_dim": (lambda x, y: torch.sum(x, 1), ["_generated_sum_0.sum"]),
    "sum_dims_method": (lambda x, y: x.sum(dim=(1, 2), keepdim=True), ["_generated_sum_0.sum"]),
    "mean_dims": (lambda x, y: torch.mean(x, dim=[2, 3], keepdim=True), ["_generated_mean_0.mean"]),
    "mean_method": (lambda x, y: x.mean([2, 3]), ["_generated_mean_0.mean"]),
    "maximum": (lambda x, y: torch.maximum(x, y), ["_generated_maximum_0.maximum"]),
    "minimum": (lambda x, y: x.minimum(y), ["_generated_minimum_0.minimum"]),
    "max_of_two": (lambda x, y: torch.max(x, y), ["_generated_maximum_0.maximum"]),
    "neg": (lambda x, y: -x, ["_generated_mul_scalar_0.mul_scalar"]),
    "mean_of_stack": (
        lambda x, y: torch.stack([x, y]).mean(0),
        ["Tensor.unsqueeze", "Tensor.unsqueeze", "_generated_cat_0.cat", "_generated_mean_0.mean"],
    ),
    "einsum": (
        lambda x, y: torch.einsum("bchw,bcwv->bvch", x, y),
        ["_generated_matmul_0.matmul", "Tensor.permute", "Tensor.contiguous"],
    ),
    "einsum_broadcast": (
        lambda x, y: torch.einsum("bchw, cw -> bch", x, y[0, :, 0]),
        ["getitem", "Tensor.unsqueeze", "_generated_matmul_0.matmul", "Tensor.squeeze"],
    ),
}

NUMBERS: dict[str, tuple[Function, list[str]]] = {
    "tensor_plus": (lambda x, y: x + 2, ["_generated_add_scalar_0.add_scalar"]),
    "plus_tensor": (lambda x, y: 2.5 + x, ["_generated_add_scalar_0.add_scalar"]),
    "tensor_minus": (lambda x, y: x - 2, ["_generated_add_scalar_0.add_scalar"]),
    "minus_tensor": (
        lambda x, y: 2 - x,
        ["_generated_mul_scalar_0.mul_scalar", "_generated_add_scalar_0.add_scalar"],
    ),
    "tensor_times": (lambda x, y: x * 3, ["_generated_mul_scalar_0.mul_scalar"]),
    "times_tensor": (lambda x, y: 3 * x, ["_generated_mul_scalar_0.mul_scalar"]),
    "tensor_by": (lambda x, y: x / 3, ["_generated_mul_scalar_0.mul_scalar"]),
    "by_tensor": (lambda x, y: 3 / x, ["_generated_reciprocal_0", "_generated_mul_scalar_0.mul_scalar"]),
    "tensor_by_tensor": (lambda x, y: x / y, ["_generated_div_0"]),
    "times_size": (lambda x, y: x * x.size(1), ["Tensor.size", "_generated_mul_scalar_0.mul_scalar"]),
    "minus_size": (lambda x, y: x - x.size(1), ["Tensor.size", "neg", "_generated_add_scalar_0.add_scalar"]),
    "by_root_of_size": (
        lambda x, y: x / x.shape[-1] ** 0.5,
        ["getattr", "getitem", "pow", "inverse", "_generated_mul_scalar_0.mul_scalar"],
    ),
}

MODULES: dict[str, tuple[Function, str, type[nn.Module]]] = {
    "F.relu": (lambda x, y: F.relu(x - y), "relu", nn.ReLU),
    "torch.relu": (lambda x, y: torch.relu(x - y), "relu", nn.ReLU),
    "method_relu": (lambda x, y: (x - y).relu(), "relu", nn.ReLU),
    "method_relu_": (lambda x, y: (x - y).relu_(), "relu", nn.ReLU),
    "F.relu6": (lambda x, y: F.relu6(x * 9), "relu6", nn.ReLU6),
    "torch.sigmoid": (lambda x, y: torch.sigmoid(x), "sigmoid", nn.Sigmoid),
    "F.sigmoid": (lambda x, y: F.sigmoid(x), "sigmoid", nn.Sigmoid),
    "method_sigmoid": (lambda x, y: x.sigmoid(), "sigmoid", nn.Sigmoid),
    "torch.tanh": (lambda x, y: torch.tanh(x), "tanh", nn.Tanh),
    "F.silu": (lambda x, y: F.silu(x), "silu", nn.SiLU),
    "F.gelu": (lambda x, y: F.gelu(x, approximate="tanh"), "gelu", nn.GELU),
    "F.hardswish": (lambda x, y: F.hardswish(x), "hardswish", nn.Hardswish),
    "F.hardsigmoid": (lambda x, y: F.hardsigmoid(x), "hardsigmoid", nn.Hardsigmoid),
    "F.leaky_relu": (lambda x, y: F.leaky_relu(x - y, 0.3), "leaky_relu", nn.LeakyReLU),
    "F.elu": (lambda x, y: F.elu(x - y, alpha=0.5), "elu", nn.ELU),
    "F.softplus": (lambda x, y: F.softplus(x, beta=2), "softplus", nn.Softplus),
    "F.hardtanh": (lambda x, y: F.hardtanh(x - y, -0.2, 0.3), "hardtanh", nn.Hardtanh),
    "F.max_pool2d": (lambda x, y: F.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True), "max_pool2d", nn.MaxPool2d),
    "F.avg_pool2d": (
        lambda x, y: F.avg_pool2d(x, 2, 1, 1, False, False),
        "avg_pool2d",
        nn.AvgPool2d,
    ),
    "F.adaptive_avg_pool2d": (
        lambda x, y: F.adaptive_avg_pool2d(x, (2, 1)),
        "adaptive_avg_pool2d",
        nn.AdaptiveAvgPool2d,
    ),
    "lt": (lambda x, y: x < y, "lt", Lt),
    "number_lt": (lambda x, y: 0.5 < x, "gt", Gt),  # noqa: SIM300 (the mirrored form is meant)
    "Tensor.ge": (lambda x, y: x.ge(0.5), "ge", Ge),
    "where": (lambda x, y: torch.where(x > y, x, y), "where", Where),
    "method_where": (lambda x, y: x.where(x > y, y), "where", Where),
    "where_number": (lambda x, y: torch.where(x > y, x, 0.25), "where", MaskedFill),
    "number_where": (lambda x, y: torch.where(x > y, 0.25, x), "where", MaskedFill),
    "masked_fill": (lambda x, y: x.masked_fill(x > y, 0.25), "masked_fill", MaskedFill),
    "max_values": (lambda x, y: x.max(1)[0], "max", Amax),
    "min_indices": (lambda x, y: torch.min(x, dim=-1, keepdim=True).indices, "min", TopIndices),
    "argmax": (lambda x, y: x.argmax(1), "argmax", TopIndices),
    "argmin": (lambda x, y: torch.argmin(x, 2, keepdim=True), "argmin", TopIndices),
    "topk_values": (lambda x, y: x.topk(2, dim=1)[0], "gather", Gather),
    "topk_indices": (lambda x, y: torch.topk(x, 2, largest=False).indices, "topk", TopIndices),
    "gather": (lambda x, y: x.gather(1, y.topk(2, 1)[1]), "gather", Gather),
    "abs": (lambda x, y: abs(x - y), "abs", Abs),
    "F.unfold": (lambda x, y: F.unfold(x, 3, padding=1), "unfold", nn.Unfold),
    "F.fold": (lambda x, y: F.fold(x.flatten(2), (7, 7), 2), "fold", nn.Fold),
    "F.adaptive_max_pool2d": (
        lambda x, y: F.adaptive_max_pool2d(x, (3, 4)),
        "adaptive_max_pool2d",
        nn.AdaptiveMaxPool2d,
    ),
    "F.grid_sample": (
        lambda x, y: F.grid_sample(x, y[:, 0, :, :2].unsqueeze(1), padding_mode="border", align_corners=False),
        "grid_sample",
        GridSample,
    ),
    "F.softmax": (lambda x, y: F.softmax(x, dim=1), "softmax", nn.Softmax),
    "torch.softmax": (lambda x, y: torch.softmax(x, 1), "softmax", nn.Softmax),
    "method_softmax": (lambda x, y: x.softmax(dim=-1), "softmax", nn.Softmax),
}


@pytest.mark.parametrize("case", [*FUNCTIONAL, *NUMBERS])
def test_arithmetic_becomes_methods_of_float_functional(case: str) -> None:
    function, expected = (FUNCTIONAL | NUMBERS)[case]
    model = Calls(function)

    gm = replaced(model)

    assert calls(gm) == expected
    arguments = inputs()
    expected_value = model(*(a.clone() for a in arguments))
    torch.testing.assert_close(gm(*(a.clone() for a in arguments)), expected_value)


@pytest.mark.parametrize("case", MODULES)
def test_functions_with_a_module_become_it(case: str) -> None:
    function, op, module = MODULES[case]
    model = Calls(function)

    gm = replaced(model)

    assert calls(gm)[-1] == f"_generated_{op}_0"
    assert type(gm.get_submodule(f"_generated_{op}_0")) is module
    arguments = inputs()
    torch.testing.assert_close(gm(*arguments), model(*arguments), rtol=0, atol=0)


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + x) + 1


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Identity(), Branch(), Branch())
        self._generated_add_0 = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.features(x)
        return x + y


def test_generated_modules_are_named_after_their_owner_and_numbered_per_owner() -> None:
    gm = replaced(Nested().eval())

    assert gm.generated_modules == {
        "features_1_generated_add_0": "features.1",
        "features_1_generated_relu_0": "features.1",
        "features_1_generated_add_scalar_0": "features.1",
        "features_2_generated_add_0": "features.2",
        "features_2_generated_relu_0": "features.2",
        "features_2_generated_add_scalar_0": "features.2",
        "_generated_add_1": "",  # the user has a _generated_add_0 of their own
    }
    assert all(not gm.get_submodule(name).training for name in gm.generated_modules)


def test_a_module_of_its_own_for_every_call_of_a_shared_block() -> None:
    block = nn.Sequential(Branch())

    gm = replaced(nn.Sequential(block, block))

    assert [name for name in gm.generated_modules if "relu" in name] == ["0_0_generated_relu_0", "0_0_generated_relu_1"]


def on_sizes(x: Tensor, y: Tensor) -> Tensor:
    n, c = x.size(0), x.shape[1]
    half = x.shape[2] * 2 // 4 + y.dim() - 4
    shape = x.shape[:1] + (c * 2, -1)  # noqa: RUF005
    return x.reshape(shape).view(n, c, half * 2, -1 + 0 * n)


@wrap()
def number_of(x: Tensor) -> int:
    return 3 if x.sum() > 0 else 4


def on_wrapped_number(x: Tensor, y: Tensor) -> Tensor:
    return x.reshape(number_of(x) - 1, -1)


UNTOUCHED: dict[str, Function] = {
    "sizes": on_sizes,
    "wrapped_number": on_wrapped_number,
    "numel": lambda x, y: x.view(x.numel() * 2 // 2),
    "new_tensor": lambda x, y: x.new_zeros(x.size(0) + 1, x.shape[1] * 2),
    "flatten": lambda x, y: torch.flatten(x, 1).reshape(2, -1).permute(1, 0).transpose(0, 1).contiguous(),
    "chunk": lambda x, y: x.chunk(2, dim=1)[0].unsqueeze(0).squeeze(0),
    "dtype": lambda x, y: x.to(y.dtype),
}


@pytest.mark.parametrize("case", UNTOUCHED)
def test_sizes_and_layout_are_left_alone(case: str) -> None:
    model = Calls(UNTOUCHED[case])

    gm = replaced(model)

    assert gm.generated_modules == {}
    x = torch.ones(2, 4, 4, 4)
    torch.testing.assert_close(gm(x, x), model(x, x))


@pytest.mark.parametrize("nested", [False, True], ids=["root", "nested"])
def test_a_wrapped_method_annotated_as_number_is_no_tensor(nested: bool) -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * (self.count(x) + 1)

        @wrap()
        def count(self, x: Tensor) -> int:
            return len(x)

    gm = replaced(nn.Sequential(Model()) if nested else Model())

    assert calls(gm)[1:] == ["add", calls(gm)[2]]
    assert calls(gm)[2].endswith("_generated_mul_scalar_0.mul_scalar")
    assert gm(torch.ones(1)).item() == 2


def test_an_argument_annotated_as_number_is_no_tensor() -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor, factor: float) -> Tensor:
            return x * (factor + 1)

    gm = replaced(Model())

    assert calls(gm) == ["add", "_generated_mul_scalar_0.mul_scalar"]
    assert gm(torch.ones(1), 2.0).item() == 3


KEPT: dict[str, tuple[Function, str, str]] = {
    "alpha": (lambda x, y: torch.add(x, y, alpha=2), "add", "alpha=2"),
    "rounding": (lambda x, y: torch.div(x, y, rounding_mode="floor"), "div", "rounding_mode=floor"),
    "max_as_a_whole": (
        lambda x, y: x.max(1),
        "Tensor.max",
        "its result is used as a whole; take its values or its indices",
    ),
    "where_indices": (lambda x, y: torch.where(x > 0.5)[0], "where", "it asks for indices"),
    "einsum_of_one": (lambda x, y: torch.einsum("bchw->bhwc", x), "einsum", "it has other operands than two tensors"),
    "einsum_outer": (
        lambda x, y: torch.einsum("bchw,bchw->bchw", x, y),
        "einsum",
        "it is no matrix product: it has not one letter that is summed, or several that are only in one",
    ),
    "by_zero": (lambda x, y: x / 0, "truediv", "it divides by zero"),
    "sum_of_all": (lambda x, y: x.sum(), "Tensor.sum", "no dim is given"),
    "mean_dtype": (lambda x, y: x.mean(1, dtype=torch.float64), "Tensor.mean", "dtype=torch.float64"),
    "softmax_dtype": (lambda x, y: F.softmax(x, 1, dtype=torch.float64), "softmax", "dtype=torch.float64"),
    "pool_to_size_of": (
        lambda x, y: F.adaptive_avg_pool2d(x, y.size(2)),
        "adaptive_avg_pool2d",
        "output_size is computed at run time",
    ),
    "power_of_number": (lambda x, y: 2**x, "pow", "its first argument is not a tensor"),
    "view_overwritten": (
        lambda x, y: (x * 1)[:, 0].add_(1),
        "Tensor.add_",
        "it writes into a view of another tensor",
    ),
    "antialias": (
        lambda x, y: F.interpolate(x, scale_factor=2.0, mode="bilinear", antialias=True),
        "interpolate",
        "antialias=True",
    ),
}


@pytest.mark.parametrize("case", KEPT)
def test_what_has_no_equal_module_stays_a_function_and_is_reported(case: str) -> None:
    function, name, reason = KEPT[case]
    model = Calls(function)

    gm = fuse_fx(model)

    assert [(kept.function, kept.reason) for kept in gm.fusion_report.kept_functions] == [(name, reason)]
    assert f"{name}" in str(gm.fusion_report)
    arguments = inputs()
    torch.testing.assert_close(gm(*arguments), model(*arguments))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_dropout_follows_the_model(training: bool) -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, 0.5, self.training)

    gm = replaced(Model().train(training))

    dropout = gm.get_submodule("_generated_dropout_0")
    assert (type(dropout), dropout.training) == (nn.Dropout, training)
    x = torch.ones(100)
    assert gm.eval()(x).sum() == 100
    assert 0 < (gm.train()(x) == 0).sum() < 100


def test_dropout_that_does_not_follow_the_model_stays_as_it_is() -> None:
    gm = replaced(Calls(lambda x, y: F.dropout(x, 0.5)).eval())

    assert calls(gm) == ["dropout"]


def test_the_table_names_every_function_once() -> None:
    assert all(callable(function) for function in RECIPES)
    assert RECIPES[operator.add] is RECIPES[torch.add] is RECIPES[torch.Tensor.add_]


def test_calls_of_float_functional_are_not_replaced_again() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plus = FloatFunctional()

        def forward(self, x: Tensor) -> Tensor:
            return self.plus.add(x, x)

    gm = replaced(Model())

    assert calls(gm) == ["plus.add"]
    functional_to_module(gm)
    assert calls(gm) == ["plus.add"]


VECTOR_NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "norm": lambda x: torch.norm(x, 2, 1),
    "vector_norm": lambda x: torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True),
    "vector_norm with an order": lambda x: torch.linalg.vector_norm(x, ord=2, dim=1),
    "linalg.norm without an order": lambda x: torch.linalg.norm(x, dim=(2, 3)),
}
OTHER_NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "spectral norm": lambda x: torch.linalg.norm(x, 2, (2, 3)),
    "sum of magnitudes": lambda x: torch.linalg.vector_norm(x, ord=1, dim=1),
}


@pytest.mark.parametrize("name", [*VECTOR_NORMS, *OTHER_NORMS])
def test_only_euclidean_lengths_become_modules_of_length(name: str) -> None:
    model = Calls(lambda x, y: {**VECTOR_NORMS, **OTHER_NORMS}[name](x))
    gm = fuse_fx(model)
    x, y = inputs()
    torch.testing.assert_close(gm(x, y), model(x, y))
    assert ("_generated_norm_0" in calls(gm)) == (name in VECTOR_NORMS)
