"""What is changed in a Program before its HBIR is built, without changing an integer: forms that the tools break on.

    Given                                      Result
    an operator on constants alone             the constant that it gives
    flattening -> linear layer                 a convolution over the whole map, which moves no data
    constant * x, max(constant, x)             x * constant, max(x, constant)
    a dilated convolution ... -> slice by 2    a dilated convolution ... -> copy -> slice by 2
    x -> ReLU, where x has other readers       x -> copy -> ReLU
    padding -> padding, the first an output    padding -> copy -> padding
    some pools and dilated convolutions        see ``windows``

What cannot be brought into a form that they take is refused with the reason. All of this was found by black-box runs.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from bpu_kernels import Node, Program, TensorSpec
from bpu_kernels.dtypes import qint8, qint32
from bpu_kernels.kernel import Kernel
from bpu_kernels.ops.constant import Constant
from bpu_kernels.ops.conv import Conv2d
from bpu_kernels.ops.elementwise import Extremum, Mul, Relu
from bpu_kernels.ops.layout import Pad, Reshape, Slice
from bpu_kernels.ops.linear import Linear
from bpu_kernels.ops.lut import Lut8

from .buildable import expect_buildable
from .idle import moves_nothing
from .windows import with_plain_windows

__all__ = ["Rewritten", "copying", "rewritten"]


@dataclass(frozen=True, kw_only=True)
class Rewritten:
    """What the builder is told to build."""

    nodes: tuple[Node, ...]
    """All of them have a part in an output."""
    specs: Mapping[str, TensorSpec]


def rewritten(program: Program) -> Rewritten:
    """Return the nodes that stand for a Program in HBIR.

    Raises:
        UnsupportedError: as of ``expect_buildable``.
    """
    nodes = _with_constants_second(_joined_linears(_folded(program), program), program.specs)
    nodes, specs = with_plain_windows(nodes, program.specs)
    nodes, specs = _with_copies(nodes, program, specs)
    used = _used(nodes, [output.tensor for output in program.outputs])
    expect_buildable(program, used, specs)
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
    """Swap operands where the first is a constant, which the checker of bernoulli2 aborts on."""
    constants = {node.output for node in nodes if isinstance(node.kernel, Constant)}
    return [
        dataclasses.replace(node, inputs=node.inputs[::-1])
        if isinstance(node.kernel, (Extremum, Mul)) and node.inputs[0] in constants and _alike(node, specs)
        else node
        for node in nodes
    ]


def _alike(node: Node, specs: Mapping[str, TensorSpec]) -> bool:
    """Whether all inputs have one type; int8 times int16 has an order."""
    return len({specs[name].dtype for name in node.inputs}) == 1


def _with_copies(
    nodes: list[Node], program: Program, known: Mapping[str, TensorSpec]
) -> tuple[list[Node], dict[str, TensorSpec]]:
    """Copy what an operator reads where the tools would merge it with its source, and break."""
    reads = _Reads(nodes, program, known)
    found, specs = [], dict(known)
    for node in nodes:
        if reads.needs_copy(node):
            copy = _copied(node, specs, reads.source(node.inputs[0]))
            found.append(copy)
            node = dataclasses.replace(node, inputs=(copy.output,))
        found.append(node)
    return found, specs


class _Reads:
    """Who reads which tensor, and what it comes from; nodes that move nothing are looked through."""

    def __init__(self, nodes: list[Node], program: Program, specs: Mapping[str, TensorSpec]) -> None:
        self._origins: dict[str, str] = {}
        for node in nodes:
            if moves_nothing(node, specs):
                self._origins[node.output] = self.origin(node.inputs[0])
        working = [node for node in nodes if node.output not in self._origins]
        self.handed_out = {self.origin(output.tensor) for output in program.outputs}
        self.counts = Counter([*self.handed_out, *(self.origin(name) for node in working for name in node.inputs)])
        self.kernels = {node.output: node.kernel for node in working}
        self.dilated: set[str] = set()
        """Tensors in which a dilated convolution has a part."""
        for node in nodes:
            if max(getattr(node.kernel, "dilation", (1,))) > 1 or self.dilated.intersection(node.inputs):
                self.dilated.add(node.output)

    def origin(self, tensor: str) -> str:
        """Return the tensor that this is in HBIR."""
        return self._origins.get(tensor, tensor)

    def source(self, tensor: str) -> Kernel | None:
        """Return the kernel that makes a tensor, None for an input."""
        return self.kernels.get(self.origin(tensor))

    def needs_copy(self, node: Node) -> bool:
        """Whether the tools break on a node if it reads its input itself."""
        kernel, read = node.kernel, node.inputs[0] if node.inputs else ""
        if isinstance(kernel, Slice):  # the passes of the checker do not end
            return max(kernel.step) > 1 and read in self.dilated
        if isinstance(kernel, Relu):  # it becomes a part of its source, which nothing else can read then
            return self.source(read) is not None and self.counts[self.origin(read)] > 1
        if isinstance(kernel, Pad):  # both become one
            return isinstance(self.source(read), Pad) and self.origin(read) in self.handed_out
        return False


def _copied(node: Node, specs: dict[str, TensorSpec], source: Kernel | None) -> Node:
    """Return a node that copies what another reads."""
    (read,) = node.inputs
    output = f"{read}.copy"
    while output in specs:
        output += "_"
    specs[output] = specs[read]
    return dataclasses.replace(node, kernel=copying(specs[read], source), output=output)


def copying(spec: TensorSpec, source: Kernel | None) -> Kernel:
    """Return a kernel that copies what another gives, and that no tool removes.

    That is padding by nothing; behind a padding, with which it would become one, the table of the identity.
    """
    if isinstance(source, Pad) and spec.dtype is qint8:
        return Lut8(table=np.arange(qint8.min, qint8.max + 1, dtype=np.int8))
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
