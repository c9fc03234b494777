"""From a Program to an HBIR file: the plan of its builder calls, and the worker process that makes them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bpu_kernels import Node, Program
from bpu_kernels.ops.choose import Gather, TopIndices
from bpu_kernels.ops.constant import Constant
from bpu_kernels.whole_file import replace_file

from .idle import moves_nothing
from .layers import BUILD
from .plan import Plan, Ref, first_of, four, type_of
from .process import Limits
from .rewrite import Rewritten, copying, rewritten
from .tools import Toolkit, find_toolkit

__all__ = ["build_hbir", "plan"]


def build_hbir(
    program: Program, path: str | Path, *, toolkit: Toolkit | None = None, limits: Limits | None = None
) -> Plan:
    """Write a Program as HBIR, built in a process of its own; whoever reads the path sees the whole file or none.

    Returns:
        The plan, which knows what the layers of the file are called.

    Raises:
        UnsupportedError: as of ``rewritten``; nothing was built.
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
        UnsupportedError: as of ``rewritten``.
    """
    built = rewritten(program)
    p = Plan(program.row)
    tensors: dict[str, Ref] = {}
    for each in program.inputs:
        p.node = each.name
        shape = {"tuple": list(four(each.spec.shape))}
        tensors[each.name] = p.call(
            "helper", "ModelInput", shape, p.input_name(each.name), type_of(each.spec.dtype), scale=list(each.scale)
        )
        p.inputs.append(tensors[each.name]["tensor"])
    makers = {node.output: node for node in built.nodes}
    for node in built.nodes:
        p.node = node.name
        specs = [built.specs[name] for name in node.inputs]
        given = [tensors[name] for name in node.inputs]
        if moves_nothing(node, built.specs):
            tensors[node.output] = given[0]
        elif takes_the_largest(node, makers):
            tensors[node.output] = first_of(given[1])
        else:
            tensors[node.output] = BUILD[type(node.kernel)](p, node.kernel, given, specs)
    _hand_out(p, program, built, tensors)
    return p


def takes_the_largest(node: Node, makers: Mapping[str, Node]) -> bool:
    """Whether a node gathers the very elements whose places another gives: the layer of that one has them already."""
    if not isinstance(node.kernel, Gather) or node.inputs[1] not in makers:
        return False
    ranked = makers[node.inputs[1]]
    if not isinstance(ranked.kernel, TopIndices):
        return False
    return ranked.inputs == node.inputs[:1] and ranked.kernel.axis == node.kernel.axis


def _hand_out(p: Plan, program: Program, built: Rewritten, tensors: Mapping[str, Ref]) -> None:
    """Name the outputs; what would be handed out as it came in, or twice, is copied, since the tools abort on it."""
    made_by = {tensors[node.output]["tensor"]: node.kernel for node in reversed(built.nodes)}
    taken = {*p.inputs, *(tensor for tensor, kernel in made_by.items() if isinstance(kernel, Constant))}
    for output in program.outputs:
        p.node, spec, made = output.tensor, program.specs[output.tensor], tensors[output.tensor]
        if made["tensor"] in taken:
            kernel = copying(spec, made_by.get(made["tensor"]))
            made = BUILD[type(kernel)](p, kernel, [made], [spec])
        taken.add(made["tensor"])
        p.outputs.append(made["tensor"])
