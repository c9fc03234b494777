"""The tracer: records a model's forward as a graph, keeping leaf modules and wrapped code as one node each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType
from typing import Any

import torch.fx
from torch import Tensor, nn
from torch.fx import Graph, Node, Proxy

from .. import torch_ao
from ..errors import FxFusionError, TraceError
from ..graph.graph_module import GraphModuleWithAttr
from ..graph.structure import copy_children, copy_structure, replace_module, separate_stateless_modules
from ..modules.float_functional import FloatFunctional
from .examples import UNKNOWN, ExampleProxy, Examples, admit_to_einops
from .foreign import foreign_functions_recorded, foreign_name, replace_foreign_modules
from .item_count import CountedProxy, stated_count
from .leaf import ACTIVE_RECORDER, is_leaf_callable, is_registered_leaf
from .partial_write import refuse_stale_views
from .trace_error import explain, is_about_symbolic_values
from .wrap import wrapped_names_patched


def trace(model: nn.Module, example_inputs: Any = None) -> GraphModuleWithAttr:
    """Return the model's graph as a module; the model itself is not changed.

    A model that is a graph module already is not traced again, its graph is copied. Parameters, buffers and modules
    without children are shared with the model.

    Args:
        model: The model.
        example_inputs: As of `fuse_fx`.

    Raises:
        TraceError: The forward cannot be recorded, or a module that it calls has forward hooks.
    """
    if isinstance(model, torch.fx.GraphModule):
        traced = GraphModuleWithAttr(model, copy.deepcopy(model.graph))
        copy_children(traced)
        _replace_float_functionals(traced)
        separate_stateless_modules(traced)
        return traced
    tracer = Tracer(example_inputs)
    try:
        graph = tracer.trace(model)
    except TraceError:
        if example_inputs is None:
            raise
        tracer = Tracer(example_inputs, fixes_batch=True)  # for a forward that computes with the batch in Python
        graph = tracer.trace(model)
    return GraphModuleWithAttr(tracer.root, graph)


_WRAPPING_PACKAGES = ("torchvision", "timm")
"""Packages that keep functions of theirs whole since plain tracing cannot follow them."""


class Tracer(torch.fx.Tracer):
    """Record the forward of a module; differs from torch.fx.Tracer in what it keeps and what it refuses.

    - Registered leaf modules, torch's stubs and whatever `wrap` was given are kept as one node each.
    - A method of FloatFunctional, or a wrapped method, is `get_attr` of the module followed by `call_method`.
    - `node.meta["owner"]` is the path of the module whose forward issued the node, "" for the root.
    - Modules with forward hooks are refused, since a graph would drop the hooks silently.
    - It works on a copy of the module tree, `tracer.root`, in which torch's FloatFunctional has become ours.
    - With example inputs, sizes other than the batch are numbers, and Python may ask for any other number as well.
    """

    def __init__(self, example_inputs: Any = None, *, fixes_batch: bool = False) -> None:
        super().__init__()
        self.fixes_batch = fixes_batch
        self._owners: list[str] = []
        self._example_inputs = example_inputs
        self.examples: Examples | None = None
        self.writes: list[tuple[Node, Node]] = []
        """Tensors before and after a part of them was written to."""

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
        replace_foreign_modules(working_copy)
        separate_stateless_modules(working_copy)
        self._owners = [""]
        self.examples = None if self._example_inputs is None else Examples(root, self._example_inputs)
        admit_to_einops()
        token = ACTIVE_RECORDER.set(self)
        try:
            with wrapped_names_patched(), foreign_functions_recorded(root):
                graph = super().trace(working_copy, concrete_args)
        except Exception as error:
            if isinstance(error, FxFusionError) or not is_about_symbolic_values(error):
                raise
            raise explain(error, type(root).__name__, has_examples=self.examples is not None) from error
        finally:
            ACTIVE_RECORDER.reset(token)
        refuse_stale_views(graph, self.writes)
        self._erase_unused_numbers(graph)
        _register_constants(working_copy, graph)
        return graph

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Tell whether a module's call is kept as one node: torch.nn's, registered types, torch's stubs."""
        return is_registered_leaf(m) or torch_ao.is_stub(m) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Record the call of a leaf, or trace through the forward of any other module."""
        if self.examples is not None and self.examples.evaluating:
            return forward(*args, **kwargs)
        path = self.path_of_module(m)
        _refuse_hooks(m, path)
        if self.is_leaf_module(m, path):
            return super().call_module(m, forward, args, kwargs)
        self._owners.append(path)
        try:
            return super().call_module(m, forward, args, kwargs)
        finally:
            self._owners.pop()

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Record the reading of a parameter."""
        if self.examples is not None and self.examples.evaluating:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_node(self, *args: Any, **kwargs: Any) -> Node:
        """Create a node and note whose forward issued it."""
        node = super().create_node(*args, **kwargs)
        node.meta["owner"] = self._owners[-1]
        return node

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **named: Any) -> Any:
        """Create a proxy and note what it stands for with the example inputs; what then does nothing is left out."""
        if self.examples is not None and _does_nothing(kind, target, args, kwargs, self.examples):
            return args[0]
        if self.examples is not None and kind == "call_function" and _is_seen_through(target):
            return target(*args, **kwargs)
        created: Any = super().create_proxy(kind, target, args, kwargs, *rest, **named)
        if self.examples is not None:
            self.examples.note(created.node, args, kwargs, self.root)
        return created

    def proxy(self, node: Node) -> Proxy:
        """Return the proxy of a node."""
        if self.examples is not None:
            return ExampleProxy(node, self)
        return super().proxy(node) if stated_count(node) is None else CountedProxy(node, self)

    def to_bool(self, obj: Proxy) -> bool:
        """Answer `if` by the example, unless it asks for the contents of a tensor."""
        value = UNKNOWN if self.examples is None else self.examples.of(obj)
        if value is UNKNOWN or isinstance(value, Tensor):
            return bool(super().to_bool(obj))
        return bool(value)

    def iter(self, obj: Proxy) -> Iterator[Any]:
        """Iterate over as many items as the example has."""
        value = UNKNOWN if self.examples is None else self.examples.of(obj)
        if not isinstance(value, (Tensor, tuple, list)):
            found: Iterator[Any] = super().iter(obj)
            return found
        items: Any = obj
        return iter([items[index] for index in range(len(value))])

    def _erase_unused_numbers(self, graph: Graph) -> None:
        """Erase what was only computed for Python to decide by."""
        for node in graph.nodes if self.examples is not None else ():
            node.meta.pop("is_wrapped", None)  # of a function that was seen through, on what it returned
        for node in reversed(list(graph.nodes)) if self.examples is not None else ():
            called = node.op in ("call_function", "call_method")
            if called and not node.users and self.examples is not None and self.examples.is_number(node):
                graph.erase_node(node)

    def record_method(self, owner: nn.Module, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Proxy:
        """Record the call of a method that is kept as one node: `get_attr` of its module, then `call_method`."""
        if self.examples is not None and self.examples.evaluating:
            raise TraceError(f"{name} is kept whole, so what it gives is not known while tracing.")
        path = self.path_of_module(owner) or "itself"
        module = self.create_proxy("get_attr", path, (), {})
        called: Proxy = self.create_proxy("call_method", name, (module, *args), dict(kwargs))
        return called


def _is_seen_through(function: Any) -> bool:
    """Whether a function was kept whole by torch.fx.wrap for tracing without example inputs; with them it need not."""
    owner = (getattr(function, "__module__", None) or "").split(".")[0]
    kept = is_leaf_callable(function) or foreign_name(function) is not None
    return owner in _WRAPPING_PACKAGES and isinstance(function, FunctionType) and not kept


def _does_nothing(kind: str, target: Any, args: Any, kwargs: Any, examples: Examples) -> bool:
    """Whether a call returns its first argument: a check that holds, or a change to the type that it has."""
    if kind == "call_function" and target is torch._assert:
        condition = examples.of(args[0])
        return isinstance(condition, bool) and condition
    if kind != "call_method" or target not in ("to", "float", "type", "type_as") or not args:
        return False
    before = examples.of(args[0])
    wanted = [examples.of(each) for each in (*args[1:], *kwargs.values())]
    types = [getattr(each, "dtype", each) for each in wanted]
    if target == "float":
        types = [torch.float32]
    has_type = any(isinstance(each, torch.dtype) for each in types)
    return has_type and isinstance(before, Tensor) and all(each in (before.dtype, before.device) for each in types)


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
