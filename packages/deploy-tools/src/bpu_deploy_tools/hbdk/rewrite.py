"""What is changed in a Program before its HBIR is built, without changing an integer: forms that the tools break on.

    Given                                      Result
    an operator on constants alone             the constant that it gives
    flattening -> linear layer                 a convolution over the whole map, which moves no data
    constant * x                               x * constant
    a dilated convolution ... -> slice by 2    a dilated convolution ... -> copy -> slice by 2
What cannot be brought into a form that they take is refused with the reason. All of this was found by black-box runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from bpu_kernels import Node, Problem, Program, TensorSpec, UnsupportedError
from bpu_kernels.dtypes import qint32
from bpu_kernels.ops.constant import Constant
from bpu_kernels.ops.conv import Conv2d, Conv3d
from bpu_kernels.ops.conv_transpose import ConvTranspose2d
from bpu_kernels.ops.elementwise import Mul
from bpu_kernels.ops.layout import Pad, Reshape, Slice
from bpu_kernels.ops.linear import Linear

__all__ = ["Rewritten", "copying", "rewritten"]

CONVOLUTIONS = (Conv2d, Conv3d, ConvTranspose2d)


@dataclass(frozen=True, kw_only=True)
class Rewritten:
    """What the builder is told to build."""

    nodes: tuple[Node, ...]
    """All of them have a part in an output."""
    specs: Mapping[str, TensorSpec]


def rewritten(program: Program) -> Rewritten:
    """Return the nodes that stand for a Program in HBIR.

    Raises:
        UnsupportedError: an input is of no use, or a convolution reads a constant.
    """
    nodes = _with_constants_second(_joined_linears(_folded(program), program), program.specs)
    nodes, specs = _with_copies(nodes, program.specs)
    used = _used(nodes, [output.tensor for output in program.outputs])
    _expect_buildable(program, used)
    return Rewritten(nodes=tuple(used), specs=specs)


def _folded(program: Program) -> list[Node]:
    """Compute what depends on constants alone."""
    constants: dict[str, Constant] = {}
    nodes = []
    for node in program.nodes:
        kernel, spec = node.kernel, program.specs[node.output]
        if spec.dtype is not qint32 and all(name in constants for name in node.inputs):
            given = [constants[name] for name in node.inputs]
            values = kernel.run(program.row, *(each.run(program.row) for each in given))
            kernel = Constant(values=values.reshape(-1), shape=spec.shape, dtype=spec.dtype)
            constants[node.output] = kernel
            node = dataclasses.replace(node, kernel=kernel, inputs=())
        nodes.append(node)
    return nodes


def _joined_linears(nodes: list[Node], program: Program) -> list[Node]:
    """Join a flattening, which nothing else reads, and the linear layer behind it."""
    readers: dict[str, int] = {}
    for name in (*(n for node in nodes for n in node.inputs), *(o.tensor for o in program.outputs)):
        readers[name] = readers.get(name, 0) + 1
    makers = {node.output: node for node in nodes}
    joined = []
    for node in nodes:
        kernel, source = node.kernel, makers.get(node.inputs[0]) if node.inputs else None
        if isinstance(kernel, Linear) and source is not None and isinstance(source.kernel, Reshape):
            shape = program.specs[source.inputs[0]].shape
            flattens = len(shape) == 4 and source.kernel.shape == (shape[0], prod(shape[1:])) and prod(shape[1:3]) > 1
            if flattens and readers[source.output] == 1 and len(node.inputs) == 1:
                fields = {f.name: getattr(kernel, f.name) for f in dataclasses.fields(kernel)}
                fields["weight"] = kernel.weight.reshape(-1, *shape[1:])
                convolution = Conv2d(**fields)
                if not convolution.problems(program.row, program.specs[source.inputs[0]]):
                    node = dataclasses.replace(node, kernel=convolution, inputs=source.inputs)
        joined.append(node)
    return joined


def _with_constants_second(nodes: list[Node], specs: Mapping[str, TensorSpec]) -> list[Node]:
    """Swap the factors where the first is a constant, which the checker of bernoulli2 aborts on."""
    constants = {node.output for node in nodes if isinstance(node.kernel, Constant)}
    return [
        dataclasses.replace(node, inputs=node.inputs[::-1])
        if isinstance(node.kernel, Mul) and node.inputs[0] in constants and _alike(node, specs)
        else node
        for node in nodes
    ]


def _alike(node: Node, specs: Mapping[str, TensorSpec]) -> bool:
    """Whether all inputs have one type; int8 times int16 has an order."""
    return len({specs[name].dtype for name in node.inputs}) == 1


def _with_copies(nodes: list[Node], specs: Mapping[str, TensorSpec]) -> tuple[list[Node], dict[str, TensorSpec]]:
    """Copy what a strided slice reads if there is a dilated convolution above, or the checker's passes do not end."""
    dilated: set[str] = set()
    found, known = [], dict(specs)
    for node in nodes:
        if max(getattr(node.kernel, "dilation", (1,))) > 1 or dilated.intersection(node.inputs):
            dilated.add(node.output)
        if isinstance(node.kernel, Slice) and max(node.kernel.step) > 1 and node.inputs[0] in dilated:
            copy = _copied(node, known)
            found.append(copy)
            node = dataclasses.replace(node, inputs=(copy.output,))
        found.append(node)
    return found, known


def _copied(node: Node, specs: dict[str, TensorSpec]) -> Node:
    """Return a node that copies what another reads."""
    (source,) = node.inputs
    output = f"{source}.copy"
    while output in specs:
        output += "_"
    specs[output] = specs[source]
    return dataclasses.replace(node, kernel=copying(specs[source]), output=output)


def copying(spec: TensorSpec) -> Pad:
    """Return the kernel that copies: padding by nothing, which every march has and no tool removes."""
    nothing = (0,) * len(spec.shape)
    return Pad(before=nothing, after=nothing)


def _used(nodes: list[Node], outputs: list[str]) -> list[Node]:
    """Return the nodes that have a part in an output, in order."""
    wanted, used = set(outputs), []
    for node in reversed(nodes):
        if node.output in wanted:
            wanted.update(node.inputs)
            used.append(node)
    return used[::-1]


def _expect_buildable(program: Program, nodes: list[Node]) -> None:
    read = {name for node in nodes for name in node.inputs} | {output.tensor for output in program.outputs}
    constants = {node.output for node in nodes if isinstance(node.kernel, Constant)}
    problems = [
        Problem(
            each.name, ("no output depends on this input (expected: every input is used; leave it out of forward)",)
        )
        for each in program.inputs
        if each.name not in read
    ]
    problems += [
        Problem(node.name, (f"{node.kernel.name} of a constant (expected: features that the inputs give)",))
        for node in nodes
        if isinstance(node.kernel, CONVOLUTIONS) and node.inputs[0] in constants
    ]
    if problems:
        raise UnsupportedError("the vendor's compiler cannot take this Program:", problems)
