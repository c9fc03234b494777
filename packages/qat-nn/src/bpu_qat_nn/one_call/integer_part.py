"""The integer part of a converted graph as one call of the native engine, while everything about it is as it was.

Between its QuantStubs and DeQuantStubs a converted graph computes on integers alone. When it is called again, a tape of
bpu_kernels notes what the engine runs there; from then on that is one call. Whatever could make a difference brings the
modules' own calls back: hooks, edits of the graph, of settings, weights and scales, inputs of other shapes or on other
devices, modes of torch. So a converted model stays as editable as it was.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from bpu_kernels.dtypes import QuantDType
from bpu_kernels.engine import native_available
from bpu_kernels.engine.settings import isa_wanted
from bpu_kernels.torch_ops import Recording, in_real_memory, tape_of

from ..qtensor import QTensor, plain
from .integer_nodes import IntegerNodes, integer_nodes
from .unchanged import Unchanged, any_global_hook

__all__ = ["forward_in_parts"]

_KEPT = 4
"""Inputs of so many shapes are recorded; of models whose inputs differ from call to call, no more than these."""

_CALLED: weakref.WeakKeyDictionary[nn.Module, object] = weakref.WeakKeyDictionary()
"""Model -> its forward when it was called before; torch.fx makes another one of every edited graph."""
_PARTS: weakref.WeakKeyDictionary[nn.Module, IntegerPart | None] = weakref.WeakKeyDictionary()
"""Model -> its integer part, None where there is no single one."""


def forward_in_parts(model: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Callable[[], Any] | None:
    """Return what computes the same as ``model.forward``; None where that itself is to be called."""
    forward = getattr(model.forward, "__func__", None)
    if kwargs or not _is_of_graph(model, forward) or not _is_ordinary(args):
        return None
    if _CALLED.get(model) is not forward:
        _CALLED[model] = forward
        _PARTS.pop(model, None)
        return None
    if model not in _PARTS:
        nodes = integer_nodes(model)
        _PARTS[model] = None if nodes is None else IntegerPart(nodes)
    part = _PARTS[model]
    return None if part is None else lambda: part.forward(model, model, *args)


def _is_of_graph(model: nn.Module, forward: Any) -> bool:
    """Whether a forward is what torch.fx has made of the graph, and nobody's own."""
    code = getattr(forward, "__code__", None)
    return "forward" not in vars(model) and code is not None and code.co_filename.startswith("<eval_with_key>")


def _is_ordinary(args: Sequence[Any]) -> bool:
    """Whether a call is one of CPU tensors, and nobody watches or transforms what torch does in it."""
    return (
        in_real_memory(*args)
        and native_available()
        and not any_global_hook()
        and torch._C._len_torch_function_stack() == 0
        and torch._C._get_tracing_state() is None
    )


@dataclass(frozen=True, eq=False)
class _Recorded:
    recording: Recording
    meaning: tuple[tuple[Tensor, QuantDType, int], ...]
    """Of the outputs: scale, type, axis of the channels."""
    strides: tuple[tuple[int, ...], ...]
    """Of the outputs as the modules give them; what float layers behind them round depends on it."""

    def run(self, inputs: Sequence[Tensor]) -> tuple[QTensor, ...]:
        steps = map(_with_strides, self.recording.run(inputs), self.strides)
        return tuple(
            QTensor(each, scale, None, dtype, axis)
            for each, (scale, dtype, axis) in zip(steps, self.meaning, strict=True)
        )


class IntegerPart:
    """The integer nodes of a model, and what was recorded of them."""

    def __init__(self, nodes: IntegerNodes) -> None:
        self.forward = nodes.outer(self._run)
        self._by_modules, self._paths = nodes.inner(), list(dict.fromkeys(nodes.modules))
        self._stubs = [str(stub.target) for stub in nodes.stubs]
        self._state: Unchanged | None = None
        """As the modules were at the call before; None before the first."""
        self._recorded: dict[tuple[object, ...], _Recorded] = {}
        """By form of the inputs."""
        self._is_refused = False
        """Whether something was found that the engine does not do."""

    def _run(self, model: GraphModule, *inputs: Any) -> tuple[Any, ...]:
        """Compute the outputs of the integer nodes from what the QuantStubs gave."""
        if not self._are_of_stubs(model, inputs):
            return self._by_modules(model, *inputs)
        key = (isa_wanted(), *((x.shape, x.stride(), x.dtype) for x in inputs))
        recorded = self._recorded.get(key)
        full = self._is_refused or len(self._recorded) >= _KEPT
        if (recorded is None and full) or not self._is_unchanged(model):
            return self._by_modules(model, *inputs)
        if recorded is None:
            return self._record(model, inputs, key)
        return recorded.run([_in_engine_order(x) for x in inputs])

    def _is_unchanged(self, model: GraphModule) -> bool:
        """Whether nothing has changed since the call before; what has just changed may change again."""
        begins = self._state is None
        if self._state is None or not self._state.holds():
            parents = dict.fromkeys(path[:end] for path in self._paths for end in _ends(path))
            self._state = Unchanged(map(model.get_submodule, self._paths), map(model.get_submodule, parents))
            self._recorded.clear()
            return begins and self._state.is_sure
        return self._state.is_sure

    def _are_of_stubs(self, model: GraphModule, inputs: Sequence[Any]) -> bool:
        """Whether the inputs are integers of the stubs' own scales, not tensors that were quantized elsewhere."""
        stubs = (model.get_submodule(path) for path in self._stubs)
        return all(
            type(x) is QTensor and x.scale is getattr(stub, "scale", None) and in_real_memory(plain(x))
            for x, stub in zip(inputs, stubs, strict=True)
        )

    def _record(self, model: GraphModule, inputs: Sequence[Any], key: tuple[object, ...]) -> tuple[Any, ...]:
        """Compute by modules, and once more in the engine's order of axes to note what runs."""
        outputs = self._by_modules(model, *inputs)
        recording = self._recording(model, inputs)
        if recording is None:
            self._is_refused = True
        else:
            meaning = tuple((y.scale, y.dtype, y.per_channel_axis) for y in outputs)
            strides = tuple(torch.empty_like(plain(y)).stride() for y in outputs)
            self._recorded[key] = _Recorded(recording, meaning, strides)
        return outputs

    def _recording(self, model: GraphModule, inputs: Sequence[Any]) -> Recording | None:
        steps = [_in_engine_order(x) for x in inputs]
        stored = (x.like(_in_order_of_torch(each)) for x, each in zip(inputs, steps, strict=True))
        try:
            with tape_of(steps) as tape:
                noted = self._by_modules(model, *stored)
        except Exception:
            return None
        found = [plain(y) for y in noted if type(y) is QTensor]
        return tape.recording(found) if len(found) == len(noted) else None


def _ends(path: str) -> list[int]:
    """Return where in a path its parents' paths end, the model's own, which is empty, first."""
    return [0, *(i for i, letter in enumerate(path) if letter == ".")]


def _in_engine_order(x: QTensor) -> Tensor:
    """Return the steps as the engine sees them: feature maps with the channels last, dense."""
    steps = plain(x)
    return (steps.movedim(1, -1) if steps.dim() in (4, 5) else steps).contiguous()


def _with_strides(steps: Tensor, strides: tuple[int, ...]) -> Tensor:
    if steps.stride() == strides:
        return steps
    return torch.empty_strided(steps.shape, strides, dtype=steps.dtype).copy_(steps)


def _in_order_of_torch(steps: Tensor) -> Tensor:
    return steps.movedim(-1, 1) if steps.dim() in (4, 5) else steps
