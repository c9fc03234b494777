"""The graph of a Program as plain data: inputs, operators in order, outputs; what the engine and the checks read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .kernel import IntArray, Kernel, TensorSpec
from .march import March, MarchRow, march_row

__all__ = ["Node", "ProgramGraph", "ProgramInput", "ProgramOutput", "Progress", "SelfTest"]


@dataclass(frozen=True, kw_only=True)
class ProgramInput:
    """A tensor that comes from outside; its name is the tensor's name."""

    name: str
    spec: TensorSpec
    """Feature maps are NHWC."""
    scale: tuple[float, ...]
    """Real value of one integer step; one, or one per channel (last axis)."""
    source: str = "ddr"
    """``"ddr"``: integers in memory; ``"pyramid"``, ``"resizer"``: a camera image, seen as centred YUV444 (30)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """An operator applied to tensors."""

    name: str
    """Path of the module that it came from; unique in its Program."""
    kernel: Kernel
    inputs: tuple[str, ...]
    """Names of tensors: of inputs, or outputs of earlier nodes."""
    output: str
    """Name of the tensor that it makes; ``ProgramBuilder`` calls it after the node."""
    scale: tuple[float, ...]
    """Real value of one integer step of the output; one, or one per channel (last axis)."""


@dataclass(frozen=True, kw_only=True)
class ProgramOutput:
    """A tensor that is handed out, under a name of its own."""

    name: str
    tensor: str


@dataclass(frozen=True, kw_only=True, eq=False)
class SelfTest:
    """Inputs, and the integers that every backend, and the board, must give for them."""

    inputs: Mapping[str, np.ndarray]
    """By input name, each in a form that ``run`` takes."""
    outputs: Mapping[str, IntArray]
    """By output name."""


Progress = Callable[[Node, int, int], None]
"""Called before each node with the node, its position from 0, and the number of nodes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ProgramGraph:
    """What a Program is made of, checked by nobody yet; ``Program`` is the valid one."""

    march: March
    inputs: tuple[ProgramInput, ...]
    nodes: tuple[Node, ...]
    """In an order in which every node comes after those that it reads."""
    outputs: tuple[ProgramOutput, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Free text, such as where the weights came from."""
    self_test: SelfTest | None = None

    @property
    def row(self) -> MarchRow:
        """What the march can do."""
        return march_row(self.march)

    @cached_property
    def specs(self) -> dict[str, TensorSpec]:
        """Shape and type of every tensor by name, in the order in which they come to be."""
        found = {each.name: each.spec for each in self.inputs}
        for node in self.nodes:
            found[node.output] = node.kernel.infer(*(found[name] for name in node.inputs))
        return found

    @cached_property
    def scales(self) -> dict[str, tuple[float, ...]]:
        """Scale of every tensor by name."""
        return {each.name: each.scale for each in self.inputs} | {node.output: node.scale for node in self.nodes}
