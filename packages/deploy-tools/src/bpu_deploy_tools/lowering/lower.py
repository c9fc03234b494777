"""``lower``: record the Program of a converted model."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node
from torch.utils._pytree import tree_flatten_with_path, tree_map_with_path

from bpu_kernels import Program
from bpu_kernels.march import march_row
from bpu_qat_nn import BpuQatError, QTensor, QuantizedGraphModule, preserved_paths
from bpu_qat_nn.flow import function_path

from ..errors import LoweringError
from .eager import announcing, row_of_converted
from .leaf_names import leaf_name
from .orders import order_entry, stored_order
from .recorder import Recorded, Recorder
from .symbolic import SymbolicReal, SymbolicTensor

__all__ = ["lower", "recorded", "torch_outputs"]


def lower(
    quantized: nn.Module,
    example_inputs: Any,
    *,
    input_source: str | Mapping[str, str] = "ddr",
    metadata: Mapping[str, str] | None = None,
) -> Program:
    """Return the Program of a converted model for inputs of these shapes.

    The model is run once on stand-ins that record the kernels it invokes. Feature maps are stored channels-last. The
    outputs' metadata ``order.<name>`` tells how to bring them back to torch's axes; ``torch_outputs`` does so.

    Args:
        quantized: a model that ``convert_fx`` returned, edited or not, or one of the eager mode's ``convert``.
        example_inputs: a tensor, or a tuple of what forward takes; shapes count, values do not.
        input_source: "ddr", "pyramid" or "resizer", for all inputs or by name.
        metadata: free text to keep in the Program.

    Raises:
        LoweringError: something in the model works on real values or has no integer form; the message names it.
        UnsupportedError: the march cannot run the Program; the message lists every node and reason.
    """
    arguments = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    recorder, result = recorded(quantized, arguments, input_source)
    recorder.path = "to_output"  # of transposes that only the outputs need
    outputs, orders = _outputs(result, recorder)
    return recorder.program(outputs, {**orders, **(metadata or {})})


def recorded(
    quantized: nn.Module, arguments: tuple[Any, ...], input_source: str | Mapping[str, str] = "ddr"
) -> tuple[Recorder, Any]:
    """Run a converted model on stand-ins; return what recorded it, and what stands for its result.

    Args and errors are those of ``lower``.
    """
    traced = isinstance(quantized, QuantizedGraphModule)
    row = march_row(quantized.march) if traced else row_of_converted(quantized)  # type: ignore[arg-type]
    if row is None:
        raise LoweringError(f"expected the model that convert_fx or convert returned, got {type(quantized).__name__}")
    kept = preserved_paths(quantized)
    if kept:
        raise LoweringError(
            f"{', '.join(kept)} stayed under QAT (set_preserve_qat_mode), which has no Program; convert without that"
        )
    recorder = Recorder(row)
    with torch.no_grad():
        if isinstance(quantized, QuantizedGraphModule):
            result = _Recording(quantized, recorder, input_source).run(*arguments)
        else:
            result = _run_eager(quantized, recorder, input_source, arguments)
    expect_sources(input_source, recorder.sources)
    return recorder, result


def expect_sources(input_source: str | Mapping[str, str], names: Collection[str]) -> None:
    """Raise LoweringError if a source is given for an input that there is not."""
    unknown = [] if isinstance(input_source, str) else [name for name in input_source if name not in names]
    if unknown:
        raise LoweringError(
            f"input_source names {', '.join(map(repr, unknown))}; the model has the inputs {', '.join(names)}"
        )


class _Recording(Interpreter):
    """Runs the graph with stand-ins for tensors and tells the recorder where it is."""

    def __init__(self, module: QuantizedGraphModule, recorder: Recorder, input_source: str | Mapping[str, str]) -> None:
        super().__init__(module)
        self.extra_traceback = False  # errors name the node themselves
        self.recorder, self.input_source = recorder, input_source

    def run_node(self, n: Node) -> Any:
        """Run one node; errors name it."""
        path = place = str(n.target) if n.op == "call_module" else n.name
        if n.op == "call_method" and isinstance(n.args[0], Node) and n.args[0].op == "get_attr":
            path = place = str(n.args[0].target)
        elif n.op in ("call_function", "call_method"):
            place = function_path(n)
        self.recorder.path = path
        try:
            result = super().run_node(n)
        except (LoweringError, BpuQatError) as error:
            raise LoweringError(f"{path}: {error}") from error
        if isinstance(result, QTensor):  # of a parameter or buffer: it does not depend on the inputs
            return SymbolicTensor.constant(self.recorder, result)
        if n.op == "placeholder":
            return _stand_in(str(n.target), result, self.recorder, self.input_source)
        if n.op.startswith("call"):
            self.recorder.note(place, result)
        return result


def _run_eager(
    model: nn.Module, recorder: Recorder, input_source: str | Mapping[str, str], arguments: tuple[Any, ...]
) -> Any:
    """Run the forward of a model that has no graph."""
    bound = inspect.signature(model.forward).bind(*arguments)
    for name, given in bound.arguments.items():
        bound.arguments[name] = _stand_in(name, given, recorder, input_source)
    return announcing(model, recorder)(*bound.args, **bound.kwargs)


def _stand_in(argument: str, given: Any, recorder: Recorder, input_source: str | Mapping[str, str]) -> Any:
    """Return what forward shall take instead of an argument: stand-ins for the tensors in it."""

    def replace_tensor(path: Any, leaf: Any) -> Any:
        if isinstance(leaf, QTensor):
            raise LoweringError(f"input {argument!r} is a QTensor; give real example inputs, the QuantStubs quantize")
        if not isinstance(leaf, Tensor):
            return leaf
        name = "_".join(filter(None, (argument, leaf_name(path))))
        by_name = {name: input_source} if isinstance(input_source, str) else input_source
        recorder.sources[name] = by_name.get(name, "ddr")
        return SymbolicReal(recorder, name, tuple(leaf.shape))

    return tree_map_with_path(replace_tensor, given)


def _outputs(result: Any, recorder: Recorder) -> tuple[dict[str, Recorded], dict[str, str]]:
    """Return every quantized tensor of the model's result by name, and their orders as metadata."""
    outputs: dict[str, Recorded] = {}
    orders: dict[str, str] = {}
    leaves, _ = tree_flatten_with_path(result)
    for position, (path, leaf) in enumerate(leaves):
        real = isinstance(leaf, SymbolicReal)
        tensor = leaf.source if real else leaf
        if not isinstance(tensor, SymbolicTensor):
            if real:
                raise LoweringError(
                    f"output {position} is an input that was never quantized; put a QuantStub behind it"
                )
            continue
        tensor = tensor.unshuffled()
        name = _output_name(path, recorder)
        if name in outputs:
            raise LoweringError(f"two outputs would be called {name!r}; rename a key of what the model returns")
        outputs[name] = tensor.value
        orders |= order_entry(name, tensor.order)
    if not outputs:
        raise LoweringError("the model returns no quantized tensor")
    return outputs, orders


def _output_name(path: Any, recorder: Recorder) -> str:
    """Return the keys and indices that lead to an output; "output_" before it where it needs a name of its own."""
    name = leaf_name(path) or "output"
    return f"output_{name}" if name.isdigit() or name in recorder.input_names else name


def torch_outputs(program: Program, outputs: Mapping[str, Any], *, dequantized: bool = True) -> dict[str, Tensor]:
    """Bring what a Program gave to torch's axes.

    Args:
        program: made by ``lower``.
        outputs: name -> integers, as ``bpu_kernels.run`` returns them.
        dequantized: multiply by the scales (float32, as DeQuantStub does), or leave integers.
    """
    found: dict[str, Tensor] = {}
    for output in program.outputs:
        integers = torch.from_numpy(outputs[output.name].copy())
        scale = torch.tensor(program.scales[output.tensor], dtype=torch.float32)
        value = integers.to(torch.float32) * scale if dequantized else integers
        order = stored_order(program, output)
        found[output.name] = value.permute([order.index(axis) for axis in range(len(order))])
    return found
