"""``record``: run a model once and keep what went into every place and what came out.

Places are modules, methods of FloatFunctional, and, of a model that has a graph, the functions in it. It works on
models of every stage, traced or not; keyword arguments and nested results are kept as they are.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from ..flow import function_path
from ..passes.forward import evaluated
from ..qtensor import QTensor
from .places import kind_of, places
from .watch import Heard, watched

__all__ = ["Call", "Recording", "arguments_of", "record", "tensors_in"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """One call of a place."""

    path: str
    """Of the module; of a function the path of the module whose forward calls it, and the name of its node."""
    number: int
    """How many calls of this path came before it."""
    kind: str
    """Class of the module, or name of the function."""
    module: nn.Module | None
    """None for a function."""
    method: str | None
    """Of a FloatFunctional: which method was called."""
    function: Callable[..., Any]
    """Computes the same again."""
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: Any
    """Arguments and result as they were then: what is written over later is copied."""
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    """Numbers of the tensors among arguments and result; the same tensor with other contents has another number."""

    @property
    def inputs(self) -> list[Tensor]:
        """The tensors among the arguments, however deep."""
        return tensors_in((self.args, dict(self.kwargs)))

    @property
    def outputs(self) -> list[Tensor]:
        """The tensors among the results."""
        return tensors_in(self.result)

    @property
    def label(self) -> str:
        """The path; from the second call on with its number, counted from 0."""
        return f"{self.path}({self.number})" if self.number else self.path


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """What a model computed, call by call, in the order in which the calls returned."""

    calls: tuple[Call, ...]
    result: Any

    def call(self, path: str, number: int = 0) -> Call | None:
        """Return a call of a path; None if there was none."""
        return next((each for each in self.calls if each.path == path and each.number == number), None)


def record(model: nn.Module, example_inputs: Any) -> Recording:
    """Run a model and return what every place read and gave.

    The model is evaluated without gradients, and observers see nothing; fake quantization stays switched as it is. The
    model is afterwards what it was before.

    Args:
        model: of any stage: float, fused, prepared (in any state), converted.
        example_inputs: a tensor, a tuple or list of what forward takes, or a dict of it by name.
    """
    recorder = _Recorder()
    listening = watched(places(model), recorder.begin, recorder.end_module)
    with torch.inference_mode(False), evaluated(model), listening:
        args, kwargs = arguments_of(tree_map(_counting_writes, example_inputs))
        if isinstance(model, GraphModule):
            result = _Following(model, recorder).run(*_by_position(model, args, kwargs))
        else:
            result = model(*args, **kwargs)
    return Recording(calls=tuple(recorder.calls), result=result)


def _counting_writes(leaf: Any) -> Any:
    """Return a tensor that counts what is written over it, as tensors made in inference mode do not."""
    return leaf.clone() if isinstance(leaf, Tensor) and leaf.is_inference() else leaf


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in nested tuples, lists and dicts."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def arguments_of(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and named arguments: a tuple or list is one by one, a dict by name, anything else the first."""
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    return (tuple(example_inputs) if isinstance(example_inputs, (tuple, list)) else (example_inputs,)), {}


def _by_position(model: GraphModule, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Sequence[Any]:
    if not kwargs:
        return args
    bound = inspect.signature(model.forward).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.args


@dataclass(frozen=True)
class _Begun:
    """What a call got, noted before it ran."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    reads: tuple[int, ...]


@dataclass
class _Recorder:
    calls: list[Call] = field(default_factory=list)
    _counts: Counter[str] = field(default_factory=Counter)
    _begun: list[_Begun] = field(default_factory=list)
    _numbers: Any = field(default_factory=WeakIdKeyDictionary)
    _next: Iterator[int] = field(default_factory=count)
    _copies: dict[int, Tensor] = field(default_factory=dict)

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note what a call gets."""
        self._begun.append(_Begun(self._kept(args), self._kept(kwargs), self._numbers_in((args, kwargs))))

    def end(
        self,
        path: str,
        kind: str,
        function: Callable[..., Any],
        result: Any,
        *,
        module: nn.Module | None = None,
        method: str | None = None,
    ) -> None:
        """Note what the call that began last gave; a function that only hands on what it got is left out."""
        begun, writes = self._begun.pop(), self._numbers_in(result)
        if module is None and set(writes) <= set(begun.reads):
            return
        self.calls.append(
            Call(
                path=path,
                number=self._counts[path],
                kind=kind,
                module=module,
                method=method,
                function=function,
                args=begun.args,
                kwargs=begun.kwargs,
                result=self._kept(result),
                reads=begun.reads,
                writes=writes,
            )
        )
        self._counts[path] += 1

    def end_module(self, heard: Heard, result: Any) -> None:
        """The same for a module."""
        kind, method = kind_of(heard.module), heard.method
        self.end(heard.path, kind, heard.function, result, module=heard.module, method=method)

    def _numbers_in(self, value: Any) -> tuple[int, ...]:
        return tuple(map(self._number, tensors_in(value)))

    def _number(self, tensor: Tensor) -> int:
        """Return a number for a tensor with its present contents."""
        version = 0 if isinstance(tensor, QTensor) else tensor._version  # nothing writes over a QTensor
        versions = self._numbers.setdefault(tensor, {})
        if version not in versions:
            versions[version] = next(self._next)
        return int(versions[version])

    def _kept(self, value: Any) -> Any:
        return tree_map(self._copy, value)

    def _copy(self, leaf: Any) -> Any:
        """Return a tensor as it is now; what was copied already is not copied again."""
        if not isinstance(leaf, Tensor) or isinstance(leaf, QTensor):
            return leaf
        number = self._number(leaf)
        if number not in self._copies:
            self._copies[number] = leaf.detach().clone()
        return self._copies[number]


class _Following(Interpreter):
    """Runs a graph and has the functions in it noted; modules are noted by themselves."""

    def __init__(self, model: GraphModule, recorder: _Recorder) -> None:
        super().__init__(model)
        self.extra_traceback = False
        self.recorder = recorder

    def run_node(self, n: Node) -> Any:
        """Run one node."""
        if not _calls_function(n):
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        self.recorder.begin(args, kwargs)
        result = super().run_node(n)
        self.recorder.end(function_path(n), _name_of(n), _function_of(n), result)
        return result


def _calls_function(node: Node) -> bool:
    """Whether a node calls a function, or a method of a tensor."""
    if node.op == "call_method":
        first = node.args[0]
        return not (isinstance(first, Node) and first.op == "get_attr")
    return node.op == "call_function"


def _name_of(node: Node) -> str:
    return str(node.target) if node.op == "call_method" else str(getattr(node.target, "__name__", node.target))


def _function_of(node: Node) -> Callable[..., Any]:
    if node.op == "call_method":
        name = str(node.target)
        return lambda x, *args, **kwargs: getattr(x, name)(*args, **kwargs)
    return node.target  # type: ignore[return-value]
