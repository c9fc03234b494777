"""The tracer: leaves, owners, and the errors that a user meets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.fx
from torch import Tensor, nn

from bpu_fx_fusion import FloatFunctional, TraceError, Tracer, UsageError, register_leaf_module, trace


@register_leaf_module
class Leaf(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.leaf = Leaf()
        self.sub = Leaf()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.leaf(x)
        return y - 1


class SubLeaf(Leaf):
    pass


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Inner(), Inner()])
        self.sub_leaf = SubLeaf()

    def forward(self, data: dict[str, Tensor]) -> Tensor:
        x = data["img"]
        for block in self.blocks:
            x = block(x)
        result: Tensor = self.sub_leaf(x)
        return result


def test_registered_types_are_leaves_and_their_subclasses_are_not() -> None:
    graph = Tracer().trace(Outer())

    assert [n.target for n in graph.nodes if n.op == "call_module"] == ["blocks.0.leaf", "blocks.1.leaf"]


def test_each_node_knows_whose_forward_issued_it() -> None:
    graph = Tracer().trace(Outer())

    assert [(n.name, n.meta["owner"]) for n in graph.nodes] == [
        ("data", ""),
        ("getitem", ""),
        ("blocks_0_leaf", "blocks.0"),
        ("sub", "blocks.0"),
        ("blocks_1_leaf", "blocks.1"),
        ("sub_1", "blocks.1"),
        ("mul", "sub_leaf"),
        ("output", ""),
    ]


def test_torch_stubs_are_leaves() -> None:
    from torch.ao.quantization import DeQuantStub, QuantStub

    model = nn.Sequential(QuantStub(), nn.ReLU(), DeQuantStub())

    assert [n.target for n in trace(model).graph.nodes if n.op == "call_module"] == ["0", "1", "2"]


class Residual(nn.Module):
    def __init__(self, functional: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Module()
        self.branch.add = functional

    def forward(self, x: Tensor) -> Tensor:
        functional: Any = self.branch.add
        result: Tensor = functional.add(x, x)
        return result


@pytest.mark.parametrize("functional", [FloatFunctional, nn.quantized.FloatFunctional], ids=["ours", "torch"])
def test_a_call_of_float_functional_is_one_node(functional: type[nn.Module]) -> None:
    model = Residual(functional())
    vars(model.branch.add)["qconfig"] = "mine"

    traced = trace(model)

    assert [(n.op, n.target) for n in traced.graph.nodes][1:-1] == [
        ("get_attr", "branch.add"),
        ("call_method", "add"),
    ]
    replaced = traced.get_submodule("branch.add")
    assert type(replaced) is FloatFunctional
    assert replaced.qconfig == "mine"
    assert type(model.branch.add) is functional
    assert traced(torch.ones(1)).item() == 2


def test_float_functional_itself_is_not_called() -> None:
    with pytest.raises(UsageError, match="call one of its methods"):
        FloatFunctional()(torch.ones(1), torch.ones(1))


def forward_pre_hook(module: nn.Module, args: Any) -> None: ...


def forward_hook(module: nn.Module, args: Any, output: Any) -> None: ...


@pytest.mark.parametrize("path", ["", "blocks.0", "blocks.1.leaf"], ids=["root", "container", "leaf"])
@pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook"])
def test_hooks_that_a_graph_would_drop_are_refused(path: str, kind: str) -> None:
    model = Outer()
    getattr(model.get_submodule(path), f"register_{kind}")(globals()[kind])

    with pytest.raises(TraceError, match=rf"{path or 'Outer'} has forward hooks \({kind}\)"):
        trace(model)


def test_hooks_of_modules_that_are_not_called_do_not_matter() -> None:
    model = Outer()
    model.blocks[0].get_submodule("sub").register_forward_hook(forward_hook)

    trace(model)


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


class Iterates(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return [row + 1 for row in x]


class Length(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return self.count(x)

    def count(self, x: Any) -> Any:
        return x.dim() + len(x)


class Range(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return sum(x[i] for i in range(x.size(0)))


class Converts(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return torch.zeros(3) + int(x.size(0))


class Creates(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return torch.zeros(x.size(0), x.size(1))


class LooksUp(nn.Module):
    def forward(self, data: dict[str, Tensor]) -> Any:
        return data["a"] if "a" in data.keys() else data["b"]  # noqa: SIM118


@pytest.mark.parametrize(
    ("model", "line", "advice"),
    [
        (Branches, "if x.sum() > 0:", "Python cannot choose a branch by it.*move these lines into a method"),
        (Iterates, "return [row + 1 for row in x]", "Index a fixed number of items"),
        (Length, "return x.dim() + len(x)", r'wrap\("len"\).*decorate `count` with `@wrap\(\)`'),
        (Range, "return sum(x[i] for i in range(x.size(0)))", "move these lines"),
        (Converts, "return torch.zeros(3) + int(x.size(0))", "move these lines"),
        (Creates, "return torch.zeros(x.size(0), x.size(1))", "move these lines"),
        (LooksUp, 'return data["a"] if "a" in data.keys() else', "move these lines"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_what_cannot_be_traced_is_shown_with_the_users_line_and_the_way_out(
    model: type[nn.Module], line: str, advice: str
) -> None:
    with pytest.raises(TraceError, match=f"(?s){advice}") as caught:
        trace(model())

    assert caught.value.__cause__ is not None
    message = str(caught.value)
    assert message.startswith(f"{model.__name__} cannot be traced:\n")
    assert f'File "{__file__}", line ' in message
    assert line in message


def test_other_errors_of_the_users_code_are_left_alone() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        trace(Broken())


def test_only_modules_are_traced() -> None:
    with pytest.raises(TraceError, match=r"Only a torch.nn.Module can be traced"):
        Tracer().trace(lambda x: x)


class Constants(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.ones(1)

    def forward(self, x: Tensor) -> Tensor:
        return x - self.mean + torch.ones(1)


def test_tensors_in_the_forward_become_buffers_that_move_with_the_model() -> None:
    model = Constants()
    traced = trace(model)

    assert [name for name, _ in traced.named_buffers()] == ["mean", "_tensor_constant0"]
    assert traced.state_dict() == {}
    assert traced.double()(torch.ones(1, dtype=torch.float64)).item() == 1
    assert dict(model.named_buffers()) == {}


def test_values_of_arguments_can_be_given() -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor, flag: bool) -> Tensor:
            return x if flag else -x

    graph = Tracer().trace(Model(), concrete_args={"flag": True})

    assert not [n for n in graph.nodes if n.op == "call_function" and "neg" in n.name]


def test_a_graph_module_is_not_traced_again() -> None:
    plain = torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()))

    traced = trace(plain)

    assert [n.name for n in traced.graph.nodes] == [n.name for n in plain.graph.nodes]
    assert traced.graph is not plain.graph


def test_a_graph_module_inside_a_model_is_traced_through() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = trace(Outer())

        def forward(self, x: Tensor) -> Any:
            return self.body({"img": x})

    model = Model()
    traced = trace(model)

    assert [n.target for n in traced.graph.nodes if n.op == "call_module"] == [
        "body.blocks.0.leaf",
        "body.blocks.1.leaf",
    ]
    torch.testing.assert_close(traced(torch.ones(1)), model(torch.ones(1)))


def test_modules_in_plain_attributes_are_found() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Inner()
            self.layers = [self.block]
            self.by_name = {"block": self.block, "size": 3}
            self.bound = self.run

        def forward(self, x: Tensor) -> Any:
            return self.bound(self.layers[0](x))

        def run(self, x: Tensor) -> Any:
            return self.by_name["block"](x)  # type: ignore[operator]

    model = Model()
    traced = trace(model)

    assert [n.target for n in traced.graph.nodes if n.op == "call_module"] == ["block.leaf", "block.leaf"]
    assert traced.layers[0] is traced.block is traced.by_name["block"] is not model.block
    assert traced.bound.__self__ is not model
