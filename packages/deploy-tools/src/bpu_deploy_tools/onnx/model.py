"""ONNX models of Programs: integers in, integers out, or real numbers with quantization written as Q and DQ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, ValueInfoProto, helper

from bpu_kernels import Program, ProgramOutput
from bpu_kernels.dtypes import qint32

from ..errors import OptionError
from ..lowering.orders import stored_order
from .graph import TYPES, Graph
from .integer import INTEGER
from .qdq import QDQ, Step, dequantized, quantized

__all__ = ["IR_VERSION", "OPSET", "integer_model", "qdq_model", "renamed"]

OPSET = 21
"""The first with int16 QuantizeLinear and DequantizeLinear."""
IR_VERSION = 10
"""The one that goes with it."""


def integer_model(program: Program) -> onnx.ModelProto:
    """Return a Program as integer operators; inputs and outputs are its integers, feature maps channels-last.

    A camera's input is the centred YUV444 that the model sees, int8 (1, H, W, 3). Scales, layouts and the march are in
    the metadata: ``scale.NAME``, ``order.NAME``, ``source.NAME``, ``march``.
    """
    g = Graph(each.name for each in program.inputs)
    tensors = {each.name: each.name for each in program.inputs}
    for node in program.nodes:
        g.scope = node.name
        specs = [program.specs[name] for name in node.inputs]
        tensors[node.output] = INTEGER[type(node.kernel)](
            g, program.row, node.kernel, [tensors[name] for name in node.inputs], specs
        )
    g.scope = ""
    names = _handed_out(g, program, {each.name: tensors[each.tensor] for each in program.outputs})
    inputs = [_info(each.name, TYPES[each.spec.dtype.bits], each.spec.shape) for each in program.inputs]
    outputs = []
    for output in program.outputs:
        spec = program.specs[output.tensor]
        outputs.append(_info(names[output.name], TYPES[spec.dtype.bits], spec.shape))
    return made_model(g, inputs, outputs, metadata_of(program))


def qdq_model(program: Program) -> onnx.ModelProto:
    """Return a Program in real numbers, quantization written as QuantizeLinear and DequantizeLinear.

    Inputs and outputs are real numbers with torch's axes. Integers differ from the Program's by rounding alone.
    """
    g = Graph(each.name for each in program.inputs)
    tensors: dict[str, str] = {}
    real: set[str] = set()  # tensors of 32 bits, for which ONNX has no QuantizeLinear
    for each in program.inputs:
        rank = len(each.spec.shape)
        stored = g.channels_last(each.name, rank) if rank >= 4 else each.name
        tensors[each.name] = quantized(g, stored, each.spec, np.asarray(each.scale))
    for node in program.nodes:
        g.scope = node.name
        values = [tensors[name] for name in node.inputs]
        specs = tuple(program.specs[name] for name in node.inputs)
        spec, scale = program.specs[node.output], np.asarray(node.scale)
        if type(node.kernel) in QDQ:
            scales = tuple(np.asarray(program.scales[name]) for name in node.inputs)
            pairs = zip(values, scales, specs, strict=True)
            reals = tuple(dequantized(g, value, each, len(s.shape)) for value, each, s in pairs)
            y = QDQ[type(node.kernel)](g, Step(program.row, reals, specs, scales, scale), node.kernel)
            tensors[node.output] = y if spec.dtype is qint32 else quantized(g, y, spec, scale)
        else:
            tensors[node.output] = INTEGER[type(node.kernel)](g, program.row, node.kernel, values, specs)
        if spec.dtype is qint32:
            real.add(node.output)
    g.scope = ""
    outputs = _real_outputs(g, program, tensors, real)
    names = _handed_out(g, program, outputs)
    inputs = [_info(each.name, TensorProto.FLOAT, _torch_shape(each.spec.shape)) for each in program.inputs]
    infos = [
        _info(
            names[each.name],
            TensorProto.FLOAT,
            [program.specs[each.tensor].shape[axis] for axis in _axes(program, each)],
        )
        for each in program.outputs
    ]
    return made_model(g, inputs, infos, {"march": str(program.march), **program.metadata})


def _torch_shape(shape: Sequence[int]) -> list[int]:
    return [shape[0], shape[-1], *shape[1:-1]] if len(shape) >= 4 else list(shape)


def _axes(program: Program, output: ProgramOutput) -> list[int]:
    """Return which stored axis each axis of the torch tensor is."""
    stored = stored_order(program, output)
    return [stored.index(axis) for axis in range(len(stored))]


def _real_outputs(g: Graph, program: Program, tensors: Mapping[str, str], real: set[str]) -> dict[str, str]:
    """Return the real values of the tensors that are handed out, by output, with torch's axes."""
    found: dict[str, str] = {}
    for output in program.outputs:
        value, spec = tensors[output.tensor], program.specs[output.tensor]
        if output.tensor not in real:
            value = dequantized(g, value, np.asarray(program.scales[output.tensor]), len(spec.shape))
        found[output.name] = g.transpose(value, _axes(program, output))
    return found


def _handed_out(g: Graph, program: Program, values: Mapping[str, str]) -> dict[str, str]:
    """Append a node for every output that gives it its name; one that an input has gets another."""
    taken = {each.name for each in program.inputs}
    names: dict[str, str] = {}
    for output in program.outputs:
        name = output.name
        while name in taken or name in g.taken:
            name = f"{name}_"
        taken.add(name)
        names[output.name] = name
        g.nodes.append(helper.make_node("Identity", [values[output.name]], [name], name=name))
    return names


def metadata_of(program: Program) -> dict[str, str]:
    """Return what a Program tells beside its integers, as text."""
    found = {"march": str(program.march), **program.metadata}
    for each in program.inputs:
        found |= {f"scale.{each.name}": _numbers(each.scale), f"source.{each.name}": each.source}
    for output in program.outputs:
        found[f"scale.{output.name}"] = _numbers(program.scales[output.tensor])
    return found


def _numbers(values: Sequence[float]) -> str:
    return " ".join(map(repr, values))


def _info(name: str, kind: int, shape: Sequence[int]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def made_model(
    g: Graph, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto], metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """Return the checked model of a graph."""
    nodes, constants = g.without_unused([each.name for each in outputs])
    graph = helper.make_graph(nodes, "program", list(inputs), list(outputs), constants)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="bpu-deploy-tools"
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


def renamed(model: onnx.ModelProto, kind: str, names: Sequence[str]) -> None:
    """Give a model's inputs or outputs other names, in place.

    Raises:
        OptionError: too few names, or one that is taken.
    """
    ports = model.graph.input if kind == "input" else model.graph.output
    everything = {name for node in model.graph.node for name in (*node.input, *node.output)}
    if len(names) != len(ports) or len(set(names)) != len(names) or everything & (set(names) - {p.name for p in ports}):
        taken = ", ".join(port.name for port in ports)
        raise OptionError(f"expected {len(ports)} new names for the {kind}s {taken}; got {', '.join(names)}")
    new = dict(zip([port.name for port in ports], names, strict=True))
    for port in ports:
        port.name = new[port.name]
    for node in model.graph.node:
        for fields in (node.input, node.output):
            fields[:] = [new.get(name, name) for name in fields]
