"""GraphModuleWithAttr: a graph module that keeps everything of the model it was traced from."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch.fx
from torch import nn
from torch.fx import Graph

from ..report import FusionReport
from .graph_state import describe_graph, rebuild_graph
from .structure import REGISTRIES

_OWNED_BY_FX = vars(torch.fx.GraphModule(nn.Module(), Graph())).keys() - vars(nn.Module()).keys()
_COPIED_REGISTRIES = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
_MISSING = object()


def copy_attributes(src: nn.Module, dst: nn.Module) -> None:
    """Give `dst` all parameters, buffers, children and plain attributes of `src`, by reference.

    Attributes that a GraphModule keeps for itself (its graph and code) and hooks are not copied. If `dst` is a
    GraphModuleWithAttr, it also offers the methods, properties and class attributes of the user's class.
    """
    for registry in _COPIED_REGISTRIES:
        vars(dst)[registry].update(vars(src)[registry])
    for name, value in vars(src).items():
        if name not in REGISTRIES and name not in _OWNED_BY_FX:
            vars(dst)[name] = value
    if isinstance(dst, GraphModuleWithAttr):
        is_graph_module = isinstance(src, torch.fx.GraphModule)
        vars(dst)["_source_class"] = vars(src).get("_source_class", nn.Module) if is_graph_module else type(src)


class GraphModuleWithAttr(torch.fx.GraphModule):
    """A GraphModule with the attributes, submodules, methods and properties of the model that was traced.

    Methods and properties of the model's class run with `self` being the graph module, so they see modules that were
    fused or swapped since. What torch.fx.GraphModule defines itself (`forward`, `train`, `state_dict`, ...) wins over
    the model's class, and `super()` without arguments cannot be used in such methods. Copying, deep copying and
    pickling keep all of it; of the nodes' `meta`, pickling keeps the owner.

    Args:
        root: The model, or another graph module, to take the attributes from; they are shared, not copied.
        graph: The graph to run.
        class_name: The name to print; that of the model's class if not given.
    """

    generated_modules: dict[str, str]
    """Modules that replaced functions and operators: name, and path of the module whose forward issued the call."""

    fused_modules: dict[str, tuple[str, ...]]
    """Paths of fused modules, and the paths of the modules they were made from, the convolution first."""

    fusion_report: FusionReport
    """What `fuse_fx` did and what it refused."""

    def __init__(self, root: nn.Module, graph: Graph, class_name: str | None = None) -> None:
        super().__init__(nn.Module(), Graph(), class_name or type(root).__name__)
        copy_attributes(root, self)
        self.generated_modules = dict(vars(self).get("generated_modules", {}))
        self.fused_modules = dict(vars(self).get("fused_modules", {}))
        self.fusion_report = vars(self).get("fusion_report", FusionReport())
        self.graph = graph

    @property
    def itself(self) -> GraphModuleWithAttr:
        """The graph module, for the graph: `get_attr` of it is how a node calls a wrapped method of the root."""
        return self

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            source = vars(self).get("_source_class", nn.Module)
            attribute = inspect.getattr_static(source, name, _MISSING)
            if attribute is _MISSING or name.startswith("__"):
                raise
        bind = getattr(type(attribute), "__get__", None)
        return bind(attribute, self, source) if bind else attribute

    def __copy__(self) -> GraphModuleWithAttr:
        cls = type(self).__mro__[1]  # torch.fx gives each instance a class of its own, derived from the real one
        copied: GraphModuleWithAttr = cls(self, copy.deepcopy(self.graph), type(self).__name__)
        return copied

    def __deepcopy__(self, memo: dict[int, Any] | None) -> GraphModuleWithAttr:
        memo = {} if memo is None else memo
        copied = _new(type(self), type(self).__name__)
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(_attributes(self), memo))
        copied.graph = copy.deepcopy(self.graph)
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        state = {"attributes": _attributes(self), "nodes": describe_graph(self.graph)}
        return _new, (type(self).__mro__[1], type(self).__name__), state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state["attributes"])
        self.graph = rebuild_graph(state["nodes"])


def _new(cls: type[GraphModuleWithAttr], class_name: str) -> GraphModuleWithAttr:
    module = cls.__new__(cls)
    type(module).__name__ = class_name
    return module


def _attributes(module: GraphModuleWithAttr) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name != "_graph"}
