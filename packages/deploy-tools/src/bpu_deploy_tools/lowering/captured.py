"""Lowering what torch captured of a converted model: traced, exported, or its plain module.

Such a model calls ``torch.ops.bpu``, whose arguments are the kernels with all their parameters. It is run once on the
example while its calls are watched; stand-ins as of ``lower`` follow the tensors and record the Program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from bpu_kernels import KERNELS, Program, quant_dtype
from bpu_kernels.march import MarchRow, march_row
from bpu_kernels.ops.constant import Constant
from bpu_kernels.ops.elementwise import Reinterpret
from bpu_kernels.torch_ops import library
from bpu_qat_nn import BpuQatError, QTensor
from bpu_qat_nn.moves import SEQUENCES, Movement

from ..errors import LoweringError
from .lower import _outputs
from .recorder import Recorder
from .symbolic import SymbolicReal, SymbolicTensor

__all__ = ["Follower", "followed", "is_captured", "lower_captured"]

MOVES: dict[str, str] = {
    "view": "reshape",
    "_unsafe_view": "reshape",
    "reshape": "reshape",
    "unsqueeze": "reshape",
    "squeeze": "reshape",
    "permute": "permute",
    "transpose": "permute",
    "t": "permute",
    "slice": "slice",
    "select": "slice",
    "split": "slice",
    "split_with_sizes": "slice",
    "unbind": "slice",
    "index": "copies",
    "index_select": "copies",
    **dict.fromkeys(SEQUENCES, "several"),
    "expand": "copies",
    "repeat": "copies",
    "flip": "copies",
    "roll": "copies",
    "alias": "same",
    "clone": "same",
    "contiguous": "same",
    "detach": "same",
}
"""Operators of aten that only move elements -> kind of movement, as in ``bpu_qat_nn.MOVES``."""


def is_captured(module: Any) -> bool:
    """Whether a model is one that torch captured."""
    return isinstance(module, (torch.jit.ScriptModule, torch.export.ExportedProgram, GraphModule))


def lower_captured(module: Any, example_inputs: Any, *, metadata: Mapping[str, str] | None = None) -> Program:
    """Return the Program of a captured model.

    Args:
        module: made of a converted model by ``torch.jit.trace``, ``torch.export`` or ``plain_module``.
        example_inputs: what it takes, in the shapes that it was captured for.
        metadata: free text to keep in the Program.

    Raises:
        LoweringError: it calls no operator of the BPU, or computes on real values.
        UnsupportedError: the march cannot run it.
    """
    follower, result = followed(module, example_inputs)
    recorder = follower.recorder
    recorder.path = "to_output"
    outputs, orders = _outputs(tree_map(follower.stand_in, result), recorder)
    return recorder.program(outputs, {**orders, **(metadata or {})})


def followed(module: Any, example_inputs: Any) -> tuple[Follower, Any]:
    """Run a captured model on the example and follow its tensors; args and errors are those of ``lower_captured``.

    Returns:
        what followed them, and the model's result.
    """
    arguments = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    inputs = [x for x in tree_leaves(arguments) if isinstance(x, Tensor)]
    names = _input_names(module, len(inputs))
    run = module.module() if isinstance(module, torch.export.ExportedProgram) else module
    follower = Follower(Recorder(_march_of(run, arguments)), dict(zip(names, inputs, strict=True)))
    try:
        with torch.no_grad(), follower:
            result = run(*arguments)
    except RuntimeError:
        if follower.failure is not None:
            raise follower.failure from None
        raise
    return follower, result


def _input_names(module: Any, count: int) -> list[str]:
    """Return the names of the inputs, as the capture kept them."""
    if isinstance(module, torch.jit.ScriptModule):
        names = [value.debugName().split(".")[0] for value in list(module.graph.inputs())[1:]]
    elif isinstance(module, torch.export.ExportedProgram):
        names = [str(name) for name in module.graph_signature.user_inputs]
    else:
        names = [str(node.target) for node in module.graph.nodes if node.op == "placeholder"]
    return names if len(names) == count else [f"input_{index}" for index in range(count)]


def _march_of(run: Any, arguments: tuple[Any, ...]) -> MarchRow:
    """Return the march that the operators of a captured model name."""
    seen = _Marches()
    with torch.no_grad(), seen:
        run(*arguments)
    if len(seen.marches) != 1:
        found = f"operators of {', '.join(sorted(seen.marches))}" if seen.marches else "no operator of the BPU"
        raise LoweringError(
            f"the captured model calls {found}; capture the model that convert_fx returned, or pass that itself"
        )
    return march_row(seen.marches.pop())


class _Marches(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the marches of the operators that are called."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.marches: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        namespace, name = _name(func)
        if namespace == library.NAMESPACE and name == "quantize":
            self.marches.add(args[3])
        elif namespace == library.NAMESPACE and name in KERNELS:
            self.marches.add(library.call_of(name, args).march)
        return func(*args, **(kwargs or {}))


def _name(func: Any) -> tuple[str, str]:
    """Return namespace and name of an operator, without its overload."""
    namespace, _, name = func.name().partition("::")
    return namespace, name.split(".")[0]


@dataclass(frozen=True)
class _Computed:
    """A real tensor that something else than the BPU computes."""

    by: str


class Follower(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows tensors through the operators of a model that runs; what is recorded is as of ``lower``."""

    def __init__(self, recorder: Recorder, inputs: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder = recorder
        self.failure: LoweringError | None = None
        """What was raised; TorchScript makes an error of its own of it."""
        self.inputs = dict(inputs)
        self.results: dict[str, Tensor] = {}
        """Integers that each operator of the BPU gave, by the labels of ``recorder.places``."""
        self._meanings: dict[int, Any] = {}
        self._alive: list[Tensor] = []  # no tensor of the run may go, so that its id stays its own
        for name, tensor in inputs.items():
            self._keep(tensor, SymbolicReal(recorder, name, tuple(tensor.shape)))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        namespace, name = _name(func)
        self.recorder.path = name
        try:
            if namespace == library.NAMESPACE:
                meaning = self._called(name, args, result)
                self._keep(result, meaning)
                if name != "dequantize":
                    self.results[self.recorder.note(name, meaning)] = result
            else:
                self._follow_torch(func, name, args, kwargs or {}, result)
        except (BpuQatError, LoweringError) as error:
            self.failure = LoweringError(f"{name}: {error}")
            raise self.failure from error
        return result

    def stand_in(self, leaf: Any) -> Any:
        """Return what stands for a tensor of the result."""
        found = self._meanings.get(id(leaf), leaf)
        if isinstance(found, _Computed):
            raise LoweringError(
                f"{found.by} works on a real tensor, which a Program does not hold: keep what follows the DeQuantStubs "
                "outside the model that is lowered"
            )
        return found

    def _keep(self, tensor: Tensor, meaning: Any) -> None:
        self._meanings[id(tensor)] = meaning
        self._alive.append(tensor)

    def _called(self, name: str, args: Sequence[Any], result: Tensor) -> Any:
        """Return what the result of an operator of the BPU stands for."""
        if name == "quantize":
            x, scale, dtype, _ = args
            real = self.stand_in(x)
            if isinstance(real, SymbolicReal):
                return real.quantize_input(scale, quant_dtype(dtype))
            return SymbolicTensor.constant(self.recorder, QTensor(result, scale, None, dtype))
        if name == "dequantize":
            return self._symbol(args[0]).dequantize()
        called, dtype = library.call_of(name, args), quant_dtype(str(result.dtype))
        if isinstance(called.kernel, Constant):
            return SymbolicTensor.constant(self.recorder, QTensor(result, called.scale, None, dtype))
        inputs = [self._symbol(x) for x in called.inputs]
        if isinstance(called.kernel, Reinterpret):
            return inputs[0].with_scale(called.scale)
        row, scale, axis = self.recorder.row, called.scale, called.axis
        return SymbolicTensor.invoke(called.kernel, row, *inputs, scale=scale, dtype=dtype, axis=axis)

    def _symbol(self, tensor: Tensor) -> SymbolicTensor:
        found = self.stand_in(tensor)
        if not isinstance(found, SymbolicTensor):
            raise LoweringError("an operator of the BPU takes integers that none of them computed")
        return found

    def _follow_torch(self, func: Any, name: str, args: Any, kwargs: Mapping[str, Any], result: Any) -> None:
        """Follow a movement of elements; note any other computation on a tensor of the model."""
        known = [
            leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and id(leaf) in self._meanings
        ]
        if not known:
            return
        if func._schema.is_mutable:
            raise LoweringError("it writes over a tensor of the model, of which others may be views")
        source, kind = self._meanings[id(known[0])], MOVES.get(name)
        if kind is None or isinstance(source, _Computed) or len(known) > 1:
            moved: Any = _Computed(name)
        elif kind == "same":
            moved = source
        elif isinstance(source, SymbolicReal) and source.source is None:
            moved = _Computed(name)
        else:
            integers: Any = source.source if isinstance(source, SymbolicReal) else source
            if kind == "several":
                moved = SEQUENCES[name](integers, *args[1:], **kwargs)
            else:
                moved = integers.moved(Movement(name, kind, integers, lambda tensor: func(tensor, *args[1:], **kwargs)))
            if isinstance(source, SymbolicReal):
                moved = tuple(x.dequantize() for x in moved) if isinstance(moved, tuple) else moved.dequantize()
        several = moved if isinstance(moved, tuple) else [moved] * len(tree_leaves(result))
        for tensor, meaning in zip(tree_leaves(result), several, strict=True):
            if isinstance(tensor, Tensor):
                self._keep(tensor, meaning)
