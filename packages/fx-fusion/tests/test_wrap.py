"""`wrap` keeps functions, methods, module classes and named globals as one node."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bpu_fx_fusion import GraphModuleWithAttr, TraceError, WrapError, trace, wrap

wrap("len")
wrap("defined_below")


@wrap()
def choose(x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


@wrap
def choose_bare(x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


def choose_statement(x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


wrap(choose_statement)


def defined_below(x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


class Calls(nn.Module):
    def __init__(self, function: str) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return globals()[self.function](x)


def targets(traced: GraphModuleWithAttr, op: str) -> list[Any]:
    return [node.target for node in traced.graph.nodes if node.op == op]


@pytest.mark.parametrize("name", ["choose", "choose_bare", "choose_statement", "defined_below"])
def test_a_wrapped_function_is_one_node_and_still_branches(name: str) -> None:
    traced = trace(Calls(name))

    assert [target.__name__ for target in targets(traced, "call_function")] == [name]
    for value in (torch.ones(2), -torch.ones(2)):
        assert traced(value).tolist() == [1, 1]


def test_wrapped_names_are_restored_after_tracing() -> None:
    before = choose_statement

    trace(Calls("choose_statement"))

    assert choose_statement is before
    assert "len" not in globals()


class TakesLength(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x * len(x)


def test_a_wrapped_builtin_is_one_node() -> None:
    traced = trace(TakesLength())

    assert len in targets(traced, "call_function")
    assert traced(torch.ones(3)).tolist() == [3, 3, 3]


def test_a_wrapped_function_without_symbolic_arguments_is_simply_called() -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + choose(torch.ones(2))

    assert [target.__name__ for target in targets(trace(Model()), "call_function")] == ["add"]


def test_a_wrapped_function_outside_tracing_is_the_function() -> None:
    assert choose(-torch.ones(1)).item() == 1
    assert choose.__name__ == "choose"


class Scaler(nn.Module):
    factor = 3.0

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.scale(x, by=2)

    @wrap()
    def scale(self, x: Tensor, by: int) -> Tensor:
        if self.training:
            return -x
        result: Tensor = self.inner(x) * by * self.factor
        return result


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(Scaler(), nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.block(x)
        return result


@pytest.mark.parametrize(("model", "owner"), [(Scaler, "itself"), (Nested, "block.0")], ids=["root", "nested"])
def test_a_wrapped_method_is_call_method_on_its_owner(model: type[nn.Module], owner: str) -> None:
    traced = trace(model())

    assert targets(traced, "get_attr") == [owner]
    assert targets(traced, "call_method") == ["scale"]
    assert traced(torch.ones(1)).item() == -1
    assert traced.eval()(torch.ones(1)).item() == 6


@pytest.mark.parametrize(("model", "path"), [(Scaler, "inner"), (Nested, "block.0.inner")], ids=["root", "nested"])
def test_a_wrapped_method_sees_swapped_modules_and_the_model_does_not(model: type[nn.Module], path: str) -> None:
    class Zero(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 0

    original = model().eval()
    traced = trace(original)
    traced.set_submodule(path, Zero())

    assert traced(torch.ones(1)).item() == 0
    assert original(torch.ones(1)).item() == 6


def test_a_wrapped_method_without_tensor_arguments_is_recorded() -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * self.sign()

        @wrap()
        def sign(self) -> int:
            return 1 if self.training else -1

    traced = trace(Model())

    assert [traced(torch.ones(1)).item(), traced.eval()(torch.ones(1)).item()] == [1, -1]


def test_a_wrapped_method_may_be_decorated_further() -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return self.detached(x)

        @torch.no_grad()
        @wrap()
        def detached(self, x: Tensor) -> Tensor:
            return 2 * x if x.sum() > 0 else -x

    traced = trace(Model())

    assert targets(traced, "call_method") == ["detached"]
    assert not traced(torch.ones(1, requires_grad=True)).requires_grad


def test_a_method_can_be_wrapped_by_a_statement_after_its_class() -> None:
    traced = trace(Late())

    assert targets(traced, "call_method") == ["choose"]


class Late(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return self.choose(x)

    def choose(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


wrap(Late.choose)


def test_a_static_method_can_be_wrapped() -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return self.choose(x)

        @wrap()
        @staticmethod
        def choose(x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    assert trace(Model())(-torch.ones(1)).item() == 1


@wrap()
class Opaque(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(x) if x.sum() > 0 else x
        return result

    def flip(self, x: Tensor) -> Tensor:
        return x if len(x) > 1 else -x

    def extra_repr(self) -> str:
        return "opaque"


class UsesOpaque(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.opaque = Opaque()

    def forward(self, x: Tensor) -> Tensor:
        return self.opaque.flip(self.opaque(x))


def test_a_wrapped_module_class_and_its_methods_are_leaves() -> None:
    traced = trace(UsesOpaque())

    assert targets(traced, "call_module") == ["opaque"]
    assert targets(traced, "call_method") == ["flip"]
    assert traced(-torch.ones(1, 1, 1, 1)).item() == 1


def test_modules_in_a_wrapped_module_are_not_shared_with_the_model() -> None:
    model = UsesOpaque()
    traced = trace(model)

    traced.set_submodule("opaque.conv", nn.Identity())

    assert isinstance(model.opaque.conv, nn.Conv2d)


def test_a_subclass_of_a_wrapped_class_is_not_a_leaf() -> None:
    class Transparent(Opaque):
        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.conv(x)
            return result

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.opaque = Transparent()

        def forward(self, x: Tensor) -> Any:
            return self.opaque(x)

    assert targets(trace(Model()), "call_module") == ["opaque.conv"]


@pytest.mark.parametrize("skip_compile", [True, False])
def test_skip_compile_is_accepted(skip_compile: bool) -> None:
    def function(x: Tensor) -> Tensor:
        return x

    assert wrap(skip_compile=skip_compile)(function)(torch.ones(1)).item() == 1
    assert wrap(skip_compile)(function)(torch.ones(1)).item() == 1


@pytest.mark.parametrize("obj", [3.5, int, property()], ids=["number", "class", "property"])
def test_wrapping_anything_else_is_refused(obj: object) -> None:
    with pytest.raises(WrapError, match="wrap expects a function, a method"):
        wrap(obj)


def test_a_name_that_does_not_exist_is_refused_when_tracing() -> None:
    namespace: dict[str, Any] = {"wrap": wrap, "__name__": "user_code"}
    exec("wrap('no_such_function')", namespace)
    try:
        with pytest.raises(WrapError, match="no such function in user_code"):
            trace(nn.Sequential(nn.ReLU()))
    finally:
        namespace["no_such_function"] = len


class Rooted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * math.sqrt(x.size(0))


def test_a_function_of_a_library_can_be_wrapped() -> None:
    wrap(math.sqrt)
    traced = trace(Rooted())

    assert math.sqrt in targets(traced, "call_function")
    assert traced(torch.ones(4)).tolist() == [2, 2, 2, 2]


def test_calling_a_method_of_a_foreign_model_is_explained() -> None:
    other = Scaler()

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return other.scale(x, by=1)

    with pytest.raises(TraceError, match="cannot be traced"):
        trace(Model())
