"""Replace functions and operators of a traced graph by modules, where fusion and quantization find a place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NoReturn, cast

import torch
from torch import Tensor, nn
from torch.fx import Node

from .constant_value import constant_value
from .float_functional import FloatFunctional
from .float_modules import ScaledDotProduct
from .functional_choice import compared, ranked, where
from .functional_einsum import einsum
from .functional_layer import LAYER_PARAMETERS, make_layer
from .functional_norm import NORM_PARAMETERS, NORMS
from .functional_table import (
    RECIPES,
    AddcmulForm,
    Binary,
    CompareForm,
    EinsumForm,
    LayerForm,
    Method,
    ModuleForm,
    NormForm,
    RankedForm,
    Recipe,
    StackForm,
    Step,
    WhereForm,
)
from .graph import called_function, contains_node, owner_of
from .graph_module import GraphModuleWithAttr
from .inplace import forward_overwritten, is_view, overwritten_input
from .report import KeptFunction
from .selection_modules import Comparison
from .stacked_batch import reduced_along_batch
from .tensor_flow import non_tensors

_PASSES: Final[tuple[tuple[type, ...], ...]] = (
    (LayerForm,),
    (NormForm,),
    (Binary, Method, ModuleForm, StackForm, AddcmulForm, EinsumForm, CompareForm, WhereForm, RankedForm),
)
"""Recipes in the order of their turn. Layers come first: what their weights are computed from goes away with them."""


def functional_to_module(gm: GraphModuleWithAttr) -> tuple[KeptFunction, ...]:
    """Replace every call that has a row in RECIPES by a module of its own, in place.

    Modules are named `_generated_<op>_<n>` after their operation, with the path of the module whose forward issued
    the call in front (`features_3_generated_add_0`), all of them children of the root; `gm.generated_modules` tells
    which owner each belongs to. Arithmetic on sizes is left alone.

    Given:  `add = x + y`
    Result: `_generated_add_0 = self._generated_add_0;  add_1 = _generated_add_0.add(x, y)`

    Returns:
        The calls that have a row and yet stay functions, with the reason.
    """
    modules = dict(gm.named_modules(remove_duplicate=False))
    forward_overwritten(gm.graph, modules)
    plain = non_tensors(gm.graph, modules)
    kept: dict[Node, KeptFunction] = {}
    for kinds in _PASSES:
        for node in list(gm.graph.nodes):
            function = called_function(node, modules)
            recipe = RECIPES.get(function) if function else None
            if recipe is None or not isinstance(recipe, kinds) or node in plain:
                continue
            try:
                _Replacement(gm, node, modules, plain).apply(recipe)
            except _Keep as verdict:
                name = ("Tensor." if node.op == "call_method" else "") + _name_of(function)
                kept[node] = KeptFunction(node=node.name, function=name, reason=str(verdict))
    gm.recompile()
    return tuple(kept[node] for node in gm.graph.nodes if node in kept)


def _name_of(function: Any) -> str:
    return str(getattr(function, "__name__", repr(function)))


class _Keep(Exception):
    """The call stays a function, for the reason given."""


class _Replacement:
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

    def apply(self, recipe: Recipe) -> None:
        result: Node | None
        can_overwrite = isinstance(recipe, ModuleForm) and "inplace" in recipe.parameters
        if self.overwritten is not None and is_view(self.overwritten) and not can_overwrite:
            self.keep("it writes into a view of another tensor")
        with self.gm.graph.inserting_before(self.node):
            if isinstance(recipe, Binary):
                result = self.binary(recipe)
            elif isinstance(recipe, Method):
                result = self.method(recipe)
            elif isinstance(recipe, StackForm):
                result = self.stack()
            elif isinstance(recipe, AddcmulForm):
                result = self.addcmul()
            elif isinstance(recipe, EinsumForm):
                result = einsum(self)
            elif isinstance(recipe, CompareForm):
                result = compared(self, recipe)
            elif isinstance(recipe, WhereForm):
                result = where(self)
            elif isinstance(recipe, RankedForm):
                result = ranked(self, recipe)
            elif isinstance(recipe, LayerForm):
                result = self.layer(recipe)
            elif isinstance(recipe, NormForm):
                result = self.norm(recipe)
            else:
                result = self.module_form(recipe)
        if result is not None:
            self.node.replace_all_uses_with(result)
        self._erase(self.node, only_constants=isinstance(recipe, LayerForm | NormForm))

    def _erase(self, node: Node, *, only_constants: bool) -> None:
        """Erase a node and the reading of parameters that only it used, with what was computed from them."""
        sources = node.all_input_nodes
        self.gm.graph.erase_node(node)
        for source in sources:
            computed = only_constants and source.op in ("call_function", "call_method")
            if not source.users and (source.op == "get_attr" or (computed and source.all_input_nodes)):
                self._erase(source, only_constants=only_constants)

    def keep(self, reason: str) -> NoReturn:
        raise _Keep(reason)

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
        return bound

    def binary(self, recipe: Binary) -> Node:
        bound = self.bind(("input", "other"), recipe.fixed)
        left, right = bound["input"], bound["other"]
        if self.is_tensor(left) and self.is_tensor(right):
            if isinstance(recipe.tensors, str):
                return self.call_functional(recipe.tensors, left, right)
            return self.call_module(recipe.op, recipe.tensors(), left, right)
        if self.is_tensor(left):
            tensor, number, steps = left, right, recipe.number_right
        else:
            tensor, number, steps = right, left, recipe.number_left
        if not steps or not self.is_tensor(tensor) or not self.is_number(number):
            self.keep("its operands are not two tensors")
        if recipe.op == "div" and tensor is left and number == 0:
            self.keep("it divides by zero")
        for step in steps:
            tensor = self.step(step, tensor, number)
        return cast(Node, tensor)

    def step(self, step: Step, tensor: Node, number: Any) -> Node:
        if not isinstance(step.to, str):
            return self.call_module(step.to.__name__.lower(), step.to(), tensor)
        if callable(step.number):
            is_node = isinstance(number, Node)
            number = self.create("call_function", step.number, (number,)) if is_node else step.number(number)
        elif step.number is not None:
            number = step.number
        return self.call_functional(step.to, tensor, number)

    def method(self, recipe: Method) -> Node:
        bound = self.bind(recipe.parameters, recipe.fixed)
        if recipe.required and bound.get(recipe.required) is None:
            self.keep(f"no {recipe.required} is given")
        first = bound.pop(recipe.parameters[0])
        return self.call_functional(recipe.op, first, *recipe.appended, **bound)

    def module_form(self, recipe: ModuleForm) -> Node:
        bound = self.bind(("input", *recipe.parameters), recipe.fixed)
        first = bound.pop("input")
        if not self.is_tensor(first):
            self.keep("its first argument is not a tensor")
        for name, value in recipe.only.items():
            if (given := bound.pop(name, value)) != value:
                self.keep(f"{name}={given}")
        if self.overwritten is not None and "inplace" in recipe.parameters:
            bound["inplace"] = True
        if recipe.training_flag and bound.pop(recipe.training_flag, True) != self.owner_module.training:
            self.keep("its training flag does not follow the model's")
        bound = {name: value for name, value in bound.items() if value is not None or name not in recipe.at_call}
        computed = {name: value for name, value in bound.items() if contains_node(value)}
        for name in computed:
            if name not in recipe.at_call:
                self.keep(f"{name} is computed at run time")
            del bound[name]
        made = recipe.module(**bound, **recipe.constants)
        if isinstance(made, ScaledDotProduct):
            made.boolean = self.is_boolean(computed.get("attn_mask"))
        return self.call_module(recipe.op, made, first, **computed)

    def is_boolean(self, value: Any) -> bool:
        """Tell whether a tensor holds truth values: in the example, or since it is a comparison."""
        if not isinstance(value, Node):
            return False
        module = self.gm.get_submodule(str(value.target)) if value.op == "call_module" else None
        return isinstance(module, Comparison) or value.meta.get("example_dtype") is torch.bool

    def stack(self) -> Node:
        bound = self.bind(("tensors", "dim"), {"out": None})
        dim = bound.get("dim", 0)
        if not isinstance(bound["tensors"], list | tuple) or not isinstance(dim, int):
            self.keep("its tensors or its dim are computed at run time")
        if dim == 0 and reduced_along_batch(self.node):
            dim = 1
        parts = [self.create("call_method", "unsqueeze", (each, dim)) for each in bound["tensors"]]
        return self.call_functional("cat", parts, dim=dim)

    def addcmul(self) -> Node:
        bound = self.bind(("input", "tensor1", "tensor2"), {"value": 1, "out": None})
        product = self.call_functional("mul", bound["tensor1"], bound["tensor2"])
        return self.call_functional("add", bound["input"], product)

    def layer(self, recipe: LayerForm) -> Node:
        bound = self.bind(("input", *LAYER_PARAMETERS[recipe.layer]), {})
        first, weight, bias = bound.pop("input"), bound.pop("weight", None), bound.pop("bias", None)
        if contains_node(bound):
            self.keep("its stride, padding, dilation or groups are computed at run time")
        parameters = [None if each is None else self.parameter(each) for each in (weight, bias)]
        if parameters[0] is None:
            self.keep("no weight is given")
        return self.call_module(recipe.op, make_layer(recipe.layer, parameters[0], parameters[1], bound), first)

    def norm(self, recipe: NormForm) -> Node:
        bound = self.bind(("input", *NORM_PARAMETERS[recipe.op]), {"cudnn_enabled": True})
        first = bound.pop("input")
        given = {name: constant_value(self.gm, value) for name, value in bound.items()}
        if any(value is None and bound[name] is not None for name, value in given.items()):
            self.keep("its weight or statistics are computed from the model's inputs")
        if recipe.op == "batch_norm" and given.get("running_mean") is None:
            self.keep("it has no running statistics")
        if given.get("training", False) != (self.owner_module.training and "training" in given):
            self.keep("its training flag does not follow the model's")
        if recipe.op == "instance_norm" and not given.get("use_input_stats", True):
            self.keep("it does not normalize by its input's statistics")
        made = NORMS[recipe.op](given, self.owner_module, self.node.meta.get("example_shape"))
        if made is None:
            self.keep("the number of its input's axes is not known without example inputs")
        return self.call_module(recipe.op, made, first)

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
        return isinstance(value, Node) and value not in self.plain

    def is_number(self, value: Any) -> bool:
        return isinstance(value, int | float) or (isinstance(value, Node) and value in self.plain)

    def call_functional(self, method: str, *args: Any, **kwargs: Any) -> Node:
        name = self.add(method, FloatFunctional())
        module = self.create("get_attr", name, ())
        return self.create("call_method", method, (module, *args), kwargs)

    def call_module(self, op: str, module: nn.Module, *args: Any, **kwargs: Any) -> Node:
        return self.create("call_module", self.add(op, module), args, kwargs)

    def create(self, op: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Node:
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
