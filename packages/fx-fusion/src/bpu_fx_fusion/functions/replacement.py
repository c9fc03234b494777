"""The call of a function that is being replaced: its arguments by name, and how modules take its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.fx import Node

from ..graph.constant_value import constant_value
from ..graph.graph_module import GraphModuleWithAttr
from ..graph.nodes import attribute_of, owner_of
from ..modules.float_functional import FloatFunctional
from ..modules.selection import Comparison
from ..tracing.inplace import overwritten_input

__all__ = ["Call", "Keep"]


class Keep(Exception):
    """The call stays a function, for the reason given."""


class Call:
    """The replacement of one node: binds its arguments, then adds modules and the calls of them before the node."""

    def __init__(
        self,
        gm: GraphModuleWithAttr,
        node: Node,
        modules: Mapping[str, nn.Module],
        plain: frozenset[Node],
    ) -> None:
        self.gm = gm
        self.node = node
        self.owner = owner_of(node)
        self.owner_module = modules.get(self.owner, gm)
        self.plain = plain
        self.overwritten = overwritten_input(node, modules)

    def erase(self, node: Node, *, only_constants: bool) -> None:
        """Erase a node and the reading of parameters that only it used, with what was computed from them."""
        sources = node.all_input_nodes
        self.gm.graph.erase_node(node)
        for source in sources:
            computed = only_constants and source.op in ("call_function", "call_method")
            if not source.users and (source.op == "get_attr" or (computed and source.all_input_nodes)):
                self.erase(source, only_constants=only_constants)

    def keep(self, reason: str) -> NoReturn:
        """Leave the call as it is, for a reason."""
        raise Keep(reason)

    def bind(self, parameters: tuple[str, ...], fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Return the call's arguments by name, or keep the call if it has others than the recipe knows."""
        if len(self.node.args) > len(parameters):
            self.keep(f"it has more than {len(parameters)} positional arguments")
        bound: dict[str, Any] = dict(zip(parameters, self.node.args, strict=False))
        aliases = {"self": parameters[0], "axis": "dim"}
        for name, value in self.node.kwargs.items():
            name = aliases.get(name, name)
            if name in fixed:
                if value != fixed[name]:
                    self.keep(f"{name}={value}")
            elif name in parameters:
                bound[name] = value
            else:
                self.keep(f"the argument {name} is not supported")
        return {name: self._number_of_constant(value) for name, value in bound.items()}

    def _number_of_constant(self, value: Any) -> Any:
        """Return the number that `torch.tensor(1.5)` in a forward is, any other argument as it is."""
        if (
            not isinstance(value, Node)
            or value.op != "get_attr"
            or not str(value.target).startswith("_tensor_constant")
        ):
            return value
        found = attribute_of(self.gm, str(value.target))
        is_number = isinstance(found, Tensor) and found.dim() == 0 and found.dtype is not torch.bool
        return found.item() if is_number else value

    def is_boolean(self, value: Any) -> bool:
        """Tell whether a tensor holds truth values: in the example, or since it is a comparison."""
        if not isinstance(value, Node):
            return False
        module = self.gm.get_submodule(str(value.target)) if value.op == "call_module" else None
        return isinstance(module, Comparison) or value.meta.get("example_dtype") is torch.bool

    def parameter(self, value: Any) -> nn.Parameter:
        """Return the parameter that a node reads, or one of what it computes from such; else keep the call."""
        found = constant_value(self.gm, value) if isinstance(value, Node) else None
        if not isinstance(found, Tensor):
            self.keep("its weight or bias is no parameter of a module")
        return found if isinstance(found, nn.Parameter) else nn.Parameter(found, requires_grad=False)

    def length(self, x: Node, dim: int) -> int:
        """Return the length of an axis, known from example inputs; else keep the call."""
        shape = x.meta.get("example_shape")
        if shape is None:
            self.keep("the length of its axis is not known without example inputs")
        return int(shape[dim])

    def is_tensor(self, value: Any) -> bool:
        """Whether a value is a tensor."""
        return isinstance(value, Node) and value not in self.plain

    def is_number(self, value: Any) -> bool:
        """Whether a value is a number, known now or at run time."""
        return isinstance(value, int | float) or (isinstance(value, Node) and value in self.plain)

    def call_functional(self, method: str, *args: Any, **kwargs: Any) -> Node:
        """Call a method of a new FloatFunctional."""
        name = self.add(method, FloatFunctional())
        module = self.create("get_attr", name, ())
        return self.create("call_method", method, (module, *args), kwargs)

    def call_module(self, op: str, module: nn.Module, *args: Any, **kwargs: Any) -> Node:
        """Call a new module."""
        return self.create("call_module", self.add(op, module), args, kwargs)

    def create(self, op: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Node:
        """Create a node that the same module has issued."""
        node = self.gm.graph.create_node(op, target, args, kwargs)
        node.meta["owner"] = self.owner
        return node

    def add(self, op: str, module: nn.Module) -> str:
        """Add a generated module to the root and return its name."""
        prefix = f"{self.owner.replace('.', '_')}_generated_{op}_"
        number = sum(generated.startswith(prefix) for generated in self.gm.generated_modules)
        while hasattr(self.gm, f"{prefix}{number}"):
            number += 1
        name = f"{prefix}{number}"
        self.gm.add_module(name, module.train(self.owner_module.training))
        self.gm.generated_modules[name] = self.owner
        return name
