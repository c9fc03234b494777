"""``lower``: record the Program of a converted model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter, Node
from torch.utils._pytree import tree_flatten_with_path, tree_map_with_path

from bpu_kernels import Program
from bpu_kernels.march import march_row
from bpu_qat_nn import BpuQatError, QTensor, QuantizedGraphModule

from .errors import LoweringError
from .recorder import Recorded, Recorder
from .symbolic import SymbolicReal, SymbolicTensor

__all__ = ["lower", "torch_outputs"]

_ORDER = "order."
"""Metadata key of an output's order: stored axis i is that axis of the torch tensor."""


def lower(
    quantized: QuantizedGraphModule,
    example_inputs: Any,
    *,
    input_source: str | Mapping[str, str] = "ddr",
    metadata: Mapping[str, str] | None = None,
) -> Program:
    """Return the Program of a converted model for inputs of these shapes.

    The model is run once on stand-ins that record the kernels it invokes. Feature maps are stored channels-last. The
    outputs' metadata ``order.<name>`` tells how to bring them back to torch's axes; ``torch_outputs`` does so.

    Args:
        quantized: a model that ``convert_fx`` returned, edited or not.
        example_inputs: a tensor, or a tuple of what forward takes; shapes count, values do not.
        input_source: "ddr", "pyramid" or "resizer", for all inputs or by name.
        metadata: free text to keep in the Program.

    Raises:
        LoweringError: something in the model works on real values or has no integer form; the message names it.
        UnsupportedError: the march cannot run the Program; the message lists every node and reason.
    """
    if not isinstance(quantized, QuantizedGraphModule):
        raise LoweringError(f"expected the model that convert_fx returned, got {type(quantized).__name__}")
    recorder = Recorder(march_row(quantized.march))
    arguments = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    with torch.no_grad():
        result = _Recording(quantized, recorder, input_source).run(*arguments)
    recorder.path = "to_output"  # of transposes that only the outputs need
    outputs, orders = _outputs(result, recorder)
    return recorder.program(outputs, {**orders, **(metadata or {})})


class _Recording(Interpreter):
    """Runs the graph with stand-ins for tensors and tells the recorder where it is."""

    def __init__(self, module: QuantizedGraphModule, recorder: Recorder, input_source: str | Mapping[str, str]) -> None:
        super().__init__(module)
        self.extra_traceback = False  # errors name the node themselves
        self.recorder, self.input_source = recorder, input_source

    def run_node(self, n: Node) -> Any:
        """Run one node; errors name it."""
        path = str(n.target) if n.op == "call_module" else n.name
        if n.op == "call_method" and isinstance(n.args[0], Node) and n.args[0].op == "get_attr":
            path = str(n.args[0].target)
        self.recorder.path = path
        try:
            result = super().run_node(n)
        except (LoweringError, BpuQatError) as error:
            raise LoweringError(f"{path}: {error}") from error
        if isinstance(result, QTensor):  # of a parameter or buffer: it does not depend on the inputs
            return SymbolicTensor.constant(self.recorder, result)
        return self._stand_in(n, result) if n.op == "placeholder" else result

    def _stand_in(self, n: Node, given: Any) -> Any:
        def replace_tensor(path: Any, leaf: Any) -> Any:
            if isinstance(leaf, QTensor):
                raise LoweringError(f"input {n.name!r} is a QTensor; give real example inputs, the QuantStubs quantize")
            if not isinstance(leaf, Tensor):
                return leaf
            name = "_".join([str(n.target), *(str(_key(part)) for part in path)])
            by_name = {name: self.input_source} if isinstance(self.input_source, str) else self.input_source
            self.recorder.sources[name] = by_name.get(name, "ddr")
            return SymbolicReal(self.recorder, name, tuple(leaf.shape))

        return tree_map_with_path(replace_tensor, given)


def _key(part: Any) -> Any:
    return getattr(part, "key", getattr(part, "idx", getattr(part, "name", part)))


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
        orders[f"{_ORDER}{name}"] = " ".join(map(str, tensor.order))
    if not outputs:
        raise LoweringError("the model returns no quantized tensor")
    return outputs, orders


def _output_name(path: Any, recorder: Recorder) -> str:
    """Return the keys and indices that lead to an output; "output_" before it where it needs a name of its own."""
    name = "_".join(str(_key(part)) for part in path) or "output"
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
        order = [int(axis) for axis in program.metadata[f"{_ORDER}{output.name}"].split()]
        found[output.name] = value.permute([order.index(axis) for axis in range(len(order))])
    return found
