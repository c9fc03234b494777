"""Example inputs for tracing: shapes of every value, so that Python code that asks for a size gets a number."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Node, Proxy
from torch.fx.node import map_aggregate
from torch.utils._pytree import register_pytree_node, tree_leaves, tree_map

from ..errors import ConfigError, TraceError
from ..graph.nodes import attribute_of
from .partial_write import written

__all__ = ["UNKNOWN", "ExampleProxy", "Examples", "admit_to_einops"]

UNKNOWN: Final = object()
"""Stands for a value that the examples do not tell: wrapped code, or what depends on the contents of a tensor."""

_FACTS: Final = frozenset({"ndim", "dtype", "device", "layout", "is_cuda", "requires_grad", "itemsize", "nbytes"})
"""Attributes of tensors that are answered at once."""


_FILLED: Final = frozenset({"new_zeros", "new_ones", "new_full", "new_tensor"})
"""Methods of tensors that make others without looking at the values; what new_empty makes is written to later."""


class Examples:
    """What each node of a graph would give for the example inputs: fake tensors, which have a shape but no contents.

    Args:
        model: whose forward takes them.
        inputs: positional arguments of the forward, or its arguments by name.

    Raises:
        ConfigError: They are not what the forward takes.
    """

    def __init__(self, model: nn.Module, inputs: Sequence[Any] | Mapping[str, Any] | Tensor) -> None:
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._values: dict[Node, Any] = {}
        self._constants: set[Node] = set()
        self._fakes: dict[int, tuple[Tensor, Any]] = {}
        args: tuple[Any, ...] = (inputs,) if isinstance(inputs, Tensor) else ()
        args = tuple(inputs) if isinstance(inputs, list | tuple) else args
        by_name = dict(inputs) if isinstance(inputs, Mapping) else {}
        try:
            bound = inspect.signature(model.forward).bind(*args, **by_name)
        except TypeError as error:
            raise ConfigError(f"example_inputs are not what {type(model).__name__}.forward takes: {error}.") from error
        bound.apply_defaults()
        self.inputs = tree_map(self._fake, dict(bound.arguments))
        self.evaluating = False
        """Whether a call is being evaluated, so that nothing is to be recorded."""

    def of(self, value: Any) -> Any:
        """Return the example of a proxy or node, UNKNOWN if there is none; anything else as it is."""
        if isinstance(value, Proxy):
            return self._values.get(value.node, UNKNOWN)
        return self._values.get(value, UNKNOWN) if isinstance(value, Node) else value

    def note(self, node: Node, args: tuple[Any, ...], kwargs: Mapping[str, Any], root: nn.Module) -> None:
        """Find out what a new node gives."""
        if node.op != "placeholder" and self._constants.issuperset(node.all_input_nodes):
            self._constants.add(node)
        given = map_aggregate((args, dict(kwargs)), self.of)
        if _contains_unknown(given):
            return
        args, kwargs = tree_map(self._fake, given)
        self.evaluating = True
        try:
            with torch.no_grad(), self._mode:
                value = self._values[node] = self._evaluate(node, args, kwargs, root)
            if isinstance(value, Tensor):
                node.meta["example_shape"], node.meta["example_dtype"] = tuple(value.shape), value.dtype
        except Exception:  # whatever keeps a fake tensor from it: then the value stays unknown
            return
        finally:
            self.evaluating = False

    def _evaluate(self, node: Node, args: Any, kwargs: Any, root: nn.Module) -> Any:
        target: Any = node.target
        if node.op == "placeholder":
            return self.inputs.get(str(target).lstrip("*"), UNKNOWN)
        if node.op == "get_attr":
            return self._fake(attribute_of(root, target))
        if node.op == "call_function":
            return target(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        module = root.get_submodule(target)
        with _evaluating(module):
            return module(*args, **kwargs)

    def _fake(self, value: Any) -> Any:
        """Return the fake of a tensor; writing to it leaves the tensor alone."""
        if not isinstance(value, Tensor) or isinstance(value, torch._subclasses.FakeTensor):
            return value
        if id(value) not in self._fakes:
            self._fakes[id(value)] = (value, self._mode.from_tensor(value))
        return self._fakes[id(value)][1]

    def is_constant(self, node: Node) -> bool:
        """Whether a node is computed from parameters alone, so that no length of it is that of a batch."""
        return node in self._constants

    def is_number(self, node: Node) -> bool:
        """Whether a node is known to give no tensor."""
        value = self._values.get(node, UNKNOWN)
        return isinstance(value, (int, float, str, torch.dtype, torch.device, torch.Size)) or value is None


def _contains_unknown(given: Any) -> bool:
    found = False

    def visit(value: Any) -> Any:
        nonlocal found
        found = found or value is UNKNOWN
        return value

    map_aggregate(given, visit)
    return found


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Switch training off for a while: batch statistics would be updated."""
    were = [(each, each.training) for each in module.modules()]
    try:
        for each, _ in were:
            each.training = False
        yield
    finally:
        for each, training in were:
            each.training = training


def _filled(name: str, example: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Return the tensor that x.new_zeros and its like give; it does not depend on x.

    Raises:
        TraceError: Its size depends on the batch. The tracer then fixes the batch.
    """
    if any(isinstance(value, Proxy) for value in tree_leaves((args, kwargs))):
        raise TraceError(f"{name} makes a tensor whose size depends on the batch.")
    made: Tensor = getattr(torch.empty(0, dtype=example.dtype, device=example.device), name)(*args, **kwargs)
    return made


class Shape(tuple[Any, ...]):
    """A tensor's shape while it is traced: the batch symbolic, all other lengths numbers."""

    def numel(self) -> Any:
        """Return the product of the lengths."""
        product: Any = 1
        for length in self:
            product = product * length
        return product

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return Shape(found) if isinstance(index, slice) else found


# torch looks for proxies among what a call is given, and into a class of tuples only if it is told how.
register_pytree_node(Shape, lambda shape: (list(shape), None), lambda lengths, _: Shape(lengths))


class ExampleProxy(Proxy):
    """A symbolic value that can answer questions about its shape, and about itself where it is a number."""

    @property
    def _example(self) -> Any:
        examples: Examples = self.tracer.examples  # type: ignore[attr-defined]
        return examples.of(self)

    def __getattr__(self, name: str) -> Any:
        example = self._example
        if isinstance(example, Tensor):
            if name == "shape":
                return self._shape()
            if name in _FACTS:
                return getattr(example, name)
            if name == "size":
                return lambda dim=None: self._shape() if dim is None else self._shape()[dim]
            if name in ("dim", "ndimension"):
                return example.dim
            if name == "mT" or (name == "T" and example.dim() == 2):
                return self.transpose(-2, -1)
            if name in _FILLED:
                return partial(_filled, name, example)
        return super().__getattr__(name)

    def _shape(self) -> Shape:
        lengths = list(self._example.shape)
        examples: Examples = self.tracer.examples  # type: ignore[attr-defined]
        if lengths and not self.tracer.fixes_batch and not examples.is_constant(self.node):  # type: ignore[attr-defined]
            lengths[0] = self.tracer.create_proxy("call_method", "size", (self, 0), {})
        return Shape(lengths)

    def __setitem__(self, index: Any, value: Any) -> None:
        """Write into a part; from here on this is the tensor that was written to."""
        examples: Examples = self.tracer.examples  # type: ignore[attr-defined]
        before = self.node
        self.node = written(self, index, value, (self._example, examples.of(value))).node
        self.tracer.writes.append((before, self.node))  # type: ignore[attr-defined]

    def _known(self) -> Any:
        example = self._example
        return UNKNOWN if isinstance(example, Tensor) else example

    def __len__(self) -> int:
        if self._example is UNKNOWN:
            return super().__len__()
        return len(self._example)

    def _number(self, kind: Callable[[Any], Any]) -> Any:
        example = self._known()
        if example is UNKNOWN:
            raise TypeError(f"symbolically traced variables (Proxy) have no value, so no {kind.__name__} of {self}")
        return kind(example)

    def __int__(self) -> int:
        return int(self._number(int))

    def __index__(self) -> int:
        return int(self._number(int))

    def __float__(self) -> float:
        return float(self._number(float))


def admit_to_einops() -> None:
    """Let einops, where it is loaded, treat symbolic values as the tensors that they stand for."""
    backends: Any = sys.modules.get("einops._backends")
    if backends is not None:
        backends._type2backend.setdefault(ExampleProxy, backends.get_backend(torch.empty(0)))
