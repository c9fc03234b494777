"""The tracer: records a model's forward as a graph, keeping leaf modules and wrapped code as one node each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch.fx
from torch import Tensor, nn
from torch.fx import Graph, Node, Proxy

from . import torch_ao
from .errors import FxFusionError, TraceError
from .float_functional import FloatFunctional
from .graph_module import GraphModuleWithAttr
from .leaf import ACTIVE_RECORDER, is_registered_leaf
from .structure import copy_children, copy_structure, replace_module
from .trace_error import explain, is_about_symbolic_values
from .wrap import wrapped_names_patched


def trace(model: nn.Module) -> GraphModuleWithAttr:
    """Return the model's graph as a module; the model itself is not changed.

    A model that is a graph module already is not traced again, its graph is copied. Parameters, buffers and modules
    without children are shared with the model.

    Raises:
        TraceError: The forward cannot be recorded, or a module that it calls has forward hooks.
    """
    if isinstance(model, torch.fx.GraphModule):
        traced = GraphModuleWithAttr(model, copy.deepcopy(model.graph))
        copy_children(traced)
        _replace_float_functionals(traced)
        return traced
    tracer = Tracer()
    graph = tracer.trace(model)
    return GraphModuleWithAttr(tracer.root, graph)


class Tracer(torch.fx.Tracer):
    """Record the forward of a module; differs from torch.fx.Tracer in what it keeps and what it refuses.

    - Registered leaf modules, torch's stubs and whatever `wrap` was given are kept as one node each.
    - A method of FloatFunctional, or a wrapped method, is `get_attr` of the module followed by `call_method`.
    - `node.meta["owner"]` is the path of the module whose forward issued the node, "" for the root.
    - Modules with forward hooks are refused, since a graph would drop the hooks silently.
    - It works on a copy of the module tree, `tracer.root`, in which torch's FloatFunctional has become ours.
    """

    def __init__(self) -> None:
        super().__init__()
        self._owners: list[str] = []

    def trace(self, root: nn.Module | Callable[..., Any], concrete_args: dict[str, Any] | None = None) -> Graph:
        """Return the graph of the root's forward.

        Args:
            root: The model.
            concrete_args: Values for arguments of the forward that shall not be symbolic.

        Raises:
            TraceError: The forward cannot be recorded; the message shows the user's line and the way out.
        """
        if not isinstance(root, nn.Module):
            raise TraceError(f"Only a torch.nn.Module can be traced, got {root!r}. Put the function into a forward.")
        _refuse_hooks(root, type(root).__name__)
        working_copy = copy_structure(root)
        _replace_float_functionals(working_copy)
        self._owners = [""]
        token = ACTIVE_RECORDER.set(self)
        try:
            with wrapped_names_patched():
                graph = super().trace(working_copy, concrete_args)
        except Exception as error:
            if isinstance(error, FxFusionError) or not is_about_symbolic_values(error):
                raise
            raise explain(error, type(root).__name__) from error
        finally:
            ACTIVE_RECORDER.reset(token)
        _register_constants(working_copy, graph)
        return graph

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Tell whether a module's call is kept as one node: torch.nn's, registered types, torch's stubs."""
        return is_registered_leaf(m) or torch_ao.is_stub(m) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Record the call of a leaf, or trace through the forward of any other module."""
        path = self.path_of_module(m)
        _refuse_hooks(m, path)
        if self.is_leaf_module(m, path):
            return super().call_module(m, forward, args, kwargs)
        self._owners.append(path)
        try:
            return super().call_module(m, forward, args, kwargs)
        finally:
            self._owners.pop()

    def create_node(self, *args: Any, **kwargs: Any) -> Node:
        """Create a node and note whose forward issued it."""
        node = super().create_node(*args, **kwargs)
        node.meta["owner"] = self._owners[-1]
        return node

    def record_method(self, owner: nn.Module, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Proxy:
        """Record the call of a method that is kept as one node: `get_attr` of its module, then `call_method`."""
        path = self.path_of_module(owner) or "itself"
        module = self.create_proxy("get_attr", path, (), {})
        return self.create_proxy("call_method", name, (module, *args), dict(kwargs))


def _replace_float_functionals(root: nn.Module) -> None:
    for module in list(root.modules()):
        if torch_ao.is_float_functional(module):
            ours = FloatFunctional().train(module.training)
            if hasattr(module, "qconfig"):
                vars(ours)["qconfig"] = module.qconfig
            replace_module(root, module, ours)


def _register_constants(root: nn.Module, graph: Graph) -> None:
    """Make buffers of the tensors that the graph takes from plain attributes of the root, so that `.to` moves them."""
    for name in dict.fromkeys(str(node.target) for node in graph.nodes if node.op == "get_attr"):
        if isinstance(vars(root).get(name), Tensor):
            root.register_buffer(name, vars(root).pop(name), persistent=False)


def _refuse_hooks(module: nn.Module, name: str) -> None:
    hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    if hooks:
        names = ", ".join(getattr(hook, "__qualname__", repr(hook)) for hook in hooks)
        raise TraceError(
            f"{name} has forward hooks ({names}), which a traced graph would drop silently. "
            "Remove them first, or make their work part of a forward."
        )
