"""From a Program to an HBIR file: the plan of its builder calls, and the worker process that makes them."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from bpu_kernels import Program
from bpu_kernels.ops.conv import Conv2d
from bpu_kernels.ops.layout import Reshape
from bpu_kernels.ops.linear import Linear
from bpu_kernels.whole_file import replace_file

from .errors import HbdkError
from .layers import BUILD, NOT_BUILT
from .plan import Plan, Ref, four, type_of
from .process import Limits
from .tools import Toolkit, find_toolkit

__all__ = ["build_hbir", "plan"]


def build_hbir(
    program: Program, path: str | Path, *, toolkit: Toolkit | None = None, limits: Limits | None = None
) -> Plan:
    """Write a Program as HBIR, built in a process of its own; whoever reads the path sees the whole file or none.

    Returns:
        The plan, which knows what the layers of the file are called.

    Raises:
        HbdkError: the builder broke; the message names the node.
    """
    toolkit, limits = toolkit or find_toolkit(), limits or Limits()
    planned = plan(program)
    with tempfile.TemporaryDirectory() as folder:
        calls, arrays, made = (Path(folder) / name for name in ("calls.json", "arrays.npz", "model.hbir"))
        calls.write_text(json.dumps({"calls": planned.calls, "inputs": planned.inputs, "outputs": planned.outputs}))
        np.savez(arrays, **planned.arrays)  # type: ignore[arg-type]
        worker = Path(__file__).with_name("worker.py").resolve()
        toolkit.run(["python", str(worker), str(calls), str(arrays), str(made)], cwd=Path(folder), limits=limits)
        replace_file(path, made.read_bytes())
    return planned


def plan(program: Program) -> Plan:
    """Return the calls that build a Program's HBIR.

    Raises:
        HbdkError: it holds operators for which no HBIR is written; the message names each.
    """
    refused = [
        f"\n  {node.name}: {node.kernel.name}: {NOT_BUILT[type(node.kernel)]}"
        for node in program.nodes
        if type(node.kernel) in NOT_BUILT
    ]
    if refused:
        raise HbdkError(
            f"no HBIR is written for operators of this Program:{''.join(refused)}\nLet the CPU compute them: put a "
            "DeQuantStub before each and a QuantStub behind it, and split_segments makes the parts"
        )
    p = Plan(program.row)
    tensors: dict[str, Ref] = {}
    for each in program.inputs:
        p.node = each.name
        shape = {"tuple": list(four(each.spec.shape))}
        tensors[each.name] = p.call(
            "helper", "ModelInput", shape, p.input_name(each.name), type_of(each.spec.dtype), scale=list(each.scale)
        )
        p.inputs.append(tensors[each.name]["tensor"])
    for node in _flattened_linears(program):
        p.node = node.name
        specs = [program.specs[name] for name in node.inputs]
        tensors[node.output] = BUILD[type(node.kernel)](p, node.kernel, [tensors[name] for name in node.inputs], specs)
    p.outputs = [tensors[output.tensor]["tensor"] for output in program.outputs]
    return p


def _flattened_linears(program: Program) -> list[Any]:
    """Join a flattening and the linear layer behind it to a convolution over the whole map, which moves no data."""
    readers: dict[str, int] = {}
    for name in (*(n for node in program.nodes for n in node.inputs), *(o.tensor for o in program.outputs)):
        readers[name] = readers.get(name, 0) + 1
    makers = {node.output: node for node in program.nodes}
    joined, dropped = [], set()
    for node in program.nodes:
        source = makers.get(node.inputs[0]) if node.inputs else None
        if isinstance(node.kernel, Linear) and source is not None and isinstance(source.kernel, Reshape):
            shape = program.specs[source.inputs[0]].shape
            flattens = len(shape) == 4 and source.kernel.shape == (shape[0], prod(shape[1:])) and prod(shape[1:3]) > 1
            if flattens and readers[source.output] == 1 and len(node.inputs) == 1:
                fields = {f.name: getattr(node.kernel, f.name) for f in dataclasses.fields(node.kernel)}
                fields["weight"] = node.kernel.weight.reshape(-1, *shape[1:])
                node = dataclasses.replace(node, kernel=Conv2d(**fields), inputs=source.inputs)
                dropped.add(source.output)
        joined.append(node)
    return [node for node in joined if node.output not in dropped]
