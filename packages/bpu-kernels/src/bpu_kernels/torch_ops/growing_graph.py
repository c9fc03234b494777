"""GrowingGraph: the nodes of a Program while they are noted, and the kernels that move elements of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ..dtypes import qint8
from ..kernel import Kernel, TensorSpec
from ..ops.concat import Concat
from ..ops.layout import Reshape, Slice
from ..program_graph import Node
from .picked import picked, runs

__all__ = ["SCALE", "GrowingGraph", "Move"]

Move = Callable[[Tensor], Tensor]
"""A function of torch that moves elements."""

SCALE = (1.0,)
"""Of every tensor: integers do not depend on what they mean."""


@dataclass
class GrowingGraph:
    """Nodes in the order in which they were added; tensors go by their names."""

    nodes: list[Node] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Of inputs and of what the nodes make."""

    def pick(self, name: str, shape: Sequence[int], move: Move) -> str | None:
        """Return the tensor of the Program that joins the runs of elements that are picked along each axis."""
        found = picked(shape, move)
        if found is None:
            return None
        picks = found[1]
        whole = (1,) * (len(picks) - len(shape)) + tuple(shape)
        name = self.shaped(name, whole)
        for axis, taken in enumerate(picks):
            parts = [self._along(name, axis, run) for run in runs(taken)]
            shape = (*whole[:axis], len(taken), *whole[axis + 1 :])
            name = parts[0] if len(parts) == 1 else self.add(Concat(axis=axis), tuple(parts), shape)
            whole = shape
        return name

    def shaped(self, name: str, shape: tuple[int, ...]) -> str:
        """Return the tensor in another shape; one without axes has one of length 1."""
        return self.applied(Reshape(shape=shape or (1,)), name)

    def applied(self, kernel: Kernel, name: str, times: int = 1) -> str:
        """Return what a kernel that moves elements makes of a tensor, given it so many times."""
        before = TensorSpec(self.shapes[name], qint8)  # of any type
        shape = kernel.infer(*(before,) * times).shape
        if isinstance(kernel, Reshape) and shape == before.shape:
            return name
        return self.add(kernel, (name,) * times, shape)

    def add(self, kernel: Kernel, inputs: tuple[str, ...], shape: tuple[int, ...]) -> str:
        """Append a node; return the name of its output."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(Node(name=name, kernel=kernel, inputs=inputs, output=name, scale=SCALE))
        self.shapes[name] = shape
        return name

    def _along(self, name: str, axis: int, run: range) -> str:
        """Return the tensor of the Program that holds some elements of one axis."""
        taken = [range(n) for n in self.shapes[name]]
        if run == taken[axis]:
            return name
        taken[axis] = run
        start, stop, step = (tuple(getattr(each, end) for each in taken) for end in ("start", "stop", "step"))
        return self.applied(Slice(start=start, stop=stop, step=step), name)
