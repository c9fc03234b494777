"""What the vendor's builder and compiler cannot take, told before they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bpu_kernels import Node, Problem, Program, TensorSpec, UnsupportedError
from bpu_kernels.dtypes import qint32
from bpu_kernels.kernel import Kernel
from bpu_kernels.ops.choose import Gather, TopIndices
from bpu_kernels.ops.concat import Concat
from bpu_kernels.ops.constant import Constant
from bpu_kernels.ops.conv import Conv2d, Conv3d
from bpu_kernels.ops.conv_transpose import ConvTranspose2d
from bpu_kernels.ops.elementwise import Extremum
from bpu_kernels.ops.layout import Reshape, Slice, Transpose
from bpu_kernels.ops.sample import GridSample, RoiAlign

from .idle import moves_nothing

__all__ = ["NOT_BUILT", "expect_buildable"]

_CONVOLUTIONS = (Conv2d, Conv3d, ConvTranspose2d)

_OURS = "its rule is ours, and what the hardware computes has not been recorded"

NOT_BUILT: dict[type[Kernel], str] = {
    GridSample: _OURS,
    RoiAlign: _OURS,
}
"""Kernel -> why no HBIR is written for it."""

_ON_THE_CPU = "it runs on the CPU: a DeQuantStub before it, a QuantStub behind it, and split_segments makes the parts"


def expect_buildable(program: Program, nodes: Sequence[Node], specs: Mapping[str, TensorSpec]) -> None:
    """Raise if a Program has what cannot be built.

    Args:
        program: its inputs and outputs count.
        nodes: what stands for its nodes; all have a part in an output.
        specs: of what they give.

    Raises:
        UnsupportedError: an input is of no use, a convolution (on bernoulli2 a maximum too) reads a constant,
            bernoulli2 would have to move axes, indices may lie outside, or an operator is of ``NOT_BUILT``.
    """
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
        if isinstance(node.kernel, _CONVOLUTIONS) and node.inputs[0] in constants
    ]
    problems += [
        Problem(node.name, (f"{node.kernel.name}: {NOT_BUILT[type(node.kernel)]} (expected: {_ON_THE_CPU})",))
        for node in nodes
        if type(node.kernel) in NOT_BUILT
    ]
    problems += [
        Problem(
            node.name, ("the larger of a tensor and a constant (expected: clamp, or two tensors that inputs give)",)
        )
        for node in nodes
        if isinstance(node.kernel, Extremum) and not program.row.moves_freely and constants.intersection(node.inputs)
    ]
    makers = {node.output: node for node in nodes}
    problems += [
        Problem(
            node.name, ("gather by 32-bit indices that may lie outside (expected: indices of 16 bits, or of topk)",)
        )
        for node in nodes
        if isinstance(node.kernel, Gather)
        and specs[node.inputs[1]].dtype is qint32
        and not _lies_below(specs[node.inputs[0]].shape[node.kernel.axis], node.inputs[1], makers, specs)
    ]
    problems += [
        Problem(
            node.name, (f"reshape to {node.kernel.shape} (expected on {program.march}: axes of 1 behind the batch)",)
        )
        for node in nodes
        if isinstance(node.kernel, Reshape) and not program.row.moves_freely and not moves_nothing(node, specs)
    ]
    if problems:
        raise UnsupportedError("the vendor's compiler cannot take this Program:", problems)


def _lies_below(bound: int, tensor: str, makers: Mapping[str, Node], specs: Mapping[str, TensorSpec]) -> bool:
    """Whether a tensor holds indices of fewer elements than ``bound``, whatever moved them."""
    node = makers.get(tensor)
    if node is None:
        return False
    if isinstance(node.kernel, TopIndices):
        return specs[node.inputs[0]].shape[node.kernel.axis] <= bound
    moves = isinstance(node.kernel, (Concat, Reshape, Slice, Transpose))
    return moves and all(_lies_below(bound, name, makers, specs) for name in node.inputs)
