"""Replace functions and operators of a traced graph by modules, where fusion and quantization find a place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from torch.fx import Node

from ..graph.graph_module import GraphModuleWithAttr
from ..graph.nodes import called_function
from ..graph.tensor_flow import non_tensors
from ..report import KeptFunction
from ..tracing.inplace import forward_overwritten, is_view
from .arithmetic import addcmul, binary, clamp, method, stack
from .choice import compared, ranked, where
from .einsum import einsum
from .module import layer, module_form, norm
from .recipe import (
    AddcmulForm,
    Binary,
    ClampForm,
    CompareForm,
    EinsumForm,
    LayerForm,
    Method,
    ModuleForm,
    NormForm,
    RankedForm,
    Recipe,
    StackForm,
    WhereForm,
)
from .replacement import Call, Keep
from .table import recipe_of

_PASSES: Final[tuple[tuple[type, ...], ...]] = (
    (LayerForm,),
    (NormForm,),
    (Binary, Method, ModuleForm, StackForm, AddcmulForm, ClampForm, EinsumForm, CompareForm, WhereForm, RankedForm),
)
"""Recipes in the order of their turn. Layers come first: what their weights are computed from goes away with them."""

FORMS: Final[Mapping[type, Callable[[Call, Any], Node | None]]] = {
    AddcmulForm: lambda call, recipe: addcmul(call),
    Binary: binary,
    ClampForm: clamp,
    CompareForm: compared,
    EinsumForm: lambda call, recipe: einsum(call),
    LayerForm: layer,
    Method: method,
    ModuleForm: module_form,
    NormForm: norm,
    RankedForm: ranked,
    StackForm: lambda call, recipe: stack(call),
    WhereForm: lambda call, recipe: where(call),
}
"""Kind of recipe -> what makes its modules and calls, and returns the node that takes the call's place."""


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
            recipe = recipe_of(function)
            if recipe is None or not isinstance(recipe, kinds) or node in plain:
                continue
            try:
                _replace(Call(gm, node, modules, plain), recipe)
            except Keep as verdict:
                name = ("Tensor." if node.op == "call_method" else "") + _name_of(function)
                kept[node] = KeptFunction(node=node.name, function=name, reason=str(verdict))
    gm.recompile()
    return tuple(kept[node] for node in gm.graph.nodes if node in kept)


def _name_of(function: Any) -> str:
    return str(getattr(function, "__name__", repr(function)))


def _replace(call: Call, recipe: Recipe) -> None:
    can_overwrite = isinstance(recipe, ModuleForm) and "inplace" in recipe.parameters
    if call.overwritten is not None and is_view(call.overwritten) and not can_overwrite:
        call.keep("it writes into a view of another tensor")
    with call.gm.graph.inserting_before(call.node):
        result = FORMS[type(recipe)](call, recipe)
    if result is not None:
        call.node.replace_all_uses_with(result)
    call.erase(call.node, only_constants=isinstance(recipe, LayerForm | NormForm))
