"""Cutting a Program into several behind named nodes; ``segments`` cuts models, which may work on the CPU in between.

Given:   `stem -> backbone -> head`, one Program, cut at `backbone`
Result:  `stage1: stem -> backbone` and `stage2: head`; the integers of `backbone` pass between them
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from bpu_kernels import Node, Program, ProgramInput, ProgramOutput
from bpu_kernels.dtypes import qint32
from bpu_kernels.ops.constant import Constant

from ..errors import OptionError
from ..lowering.layout import channels_last
from .ports import Manifest, ManifestEntry, program_inputs, program_outputs

__all__ = ["ProgramStages", "split_program"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ProgramStages:
    """The parts of a Program, in the order in which they run; outputs go to the inputs of the same name."""

    march: str
    stages: dict[str, Program]
    """"stage1", "stage2", ..."""

    @property
    def manifest(self) -> Manifest:
        """Name, shape, type and scale of every tensor at a border."""
        entries = [
            ManifestEntry(name=name, runs_on="bpu", inputs=program_inputs(part), outputs=program_outputs(part))
            for name, part in self.stages.items()
        ]
        return Manifest(march=self.march, segments=tuple(entries))

    def save(self, folder: str | Path) -> None:
        """Write ``manifest.json`` and the Programs, ``<name>.bpu``."""
        self.manifest.save(folder, self.stages)


def split_program(program: Program, cuts: Sequence[str | Sequence[str]]) -> ProgramStages:
    """Cut a Program behind nodes; the parts together give the integers of the whole.

    A stage holds the nodes of its cut and all that they need and no earlier stage has; the last one holds the rest.
    A tensor that a later stage reads leaves under its own name, in addition to the name that it may have as an output.

    Args:
        program: it is not changed.
        cuts: names of nodes, one cut each, in the order in which the stages run; several names are one cut.

    Raises:
        OptionError: no such node, a stage without nodes, or a 32-bit tensor that would have to enter a stage.
    """
    positions = _positions(program, [[cut] if isinstance(cut, str) else list(cut) for cut in cuts])
    made_in = {node.output: position for node, position in zip(program.nodes, positions, strict=True)}
    constants = {node.output: node for node in program.nodes if isinstance(node.kernel, Constant)}
    read_in: dict[str, int] = {}
    for node, position in zip(program.nodes, positions, strict=True):
        for name in node.inputs:
            read_in[name] = max(read_in.get(name, 0), position)
    stages = {}
    for position in range(len(cuts) + 1):
        nodes = [node for node, own in zip(program.nodes, positions, strict=True) if own == position]
        crossing = [n.output for n in nodes if n.output not in constants and read_in.get(n.output, 0) > position]
        outputs = [output for output in program.outputs if made_in.get(output.tensor, 0) == position]
        if not outputs and not crossing:
            raise OptionError(f"no output depends on stage {position + 1}, which holds {nodes[0].name}; cut elsewhere")
        stages[f"stage{position + 1}"] = _stage(program, nodes, outputs, crossing, constants)
    return ProgramStages(march=str(program.march), stages=stages)


def _positions(program: Program, cuts: list[list[str]]) -> list[int]:
    """Return which stage each node belongs to."""
    by_name = {node.name: node for node in program.nodes}
    makers = {node.output: node for node in program.nodes}
    found: dict[str, int] = {}
    for position, cut in enumerate(cuts):
        unknown = [name for name in cut if name not in by_name]
        if unknown or not cut:
            close = get_close_matches(unknown[0], by_name, n=5) if unknown else []
            hint = f"; close to it: {', '.join(close)}" if close else ""
            raise OptionError(f"no node {unknown[0] if unknown else ''!r} in this Program{hint}")
        before = len(found)
        wanted = [by_name[name] for name in cut]
        while wanted:
            node = wanted.pop()
            if found.setdefault(node.name, position) == position:
                wanted += [makers[name] for name in node.inputs if name in makers and makers[name].name not in found]
        if len(found) == before:
            raise OptionError(f"the cut {', '.join(cut)} leaves its stage empty: an earlier one needs it already")
    if len(found) == len(program.nodes):
        raise OptionError(f"nothing is left behind the cut {', '.join(cuts[-1])}; leave it out")
    return [found.get(node.name, len(cuts)) for node in program.nodes]


def _stage(
    program: Program,
    nodes: Sequence[Node],
    outputs: Sequence[ProgramOutput],
    crossing: Sequence[str],
    constants: dict[str, Node],
) -> Program:
    """Return the Program of one stage; constants are put into every stage that reads them."""
    own = {node.output for node in nodes}
    read = list(dict.fromkeys(name for node in nodes for name in node.inputs if name not in own))
    passed = [output.tensor for output in outputs if output.tensor not in own]  # inputs that are outputs as well
    given = {each.name: each for each in program.inputs}
    taken = [name for name in dict.fromkeys([*read, *passed]) if name not in constants]
    inputs = [given[name] if name in given else _entering(program, name) for name in taken]
    repeated = [constants[name] for name in read if name in constants]
    handed_on = [name for name in crossing if all(output.name != name for output in outputs)]
    orders = {f"order.{name}": " ".join(map(str, _order(program, name))) for name in handed_on}
    return Program(
        march=program.march,
        inputs=tuple(inputs),
        nodes=(*repeated, *nodes),
        outputs=(*outputs, *(ProgramOutput(name=name, tensor=name) for name in handed_on)),
        metadata={**_metadata_of(program, outputs), **orders},
    )


def _order(program: Program, tensor: str) -> tuple[int, ...]:
    """Return the order of a tensor at a border, which is taken for a feature map."""
    return channels_last(len(program.specs[tensor].shape))


def _entering(program: Program, tensor: str) -> ProgramInput:
    spec = program.specs[tensor]
    if spec.dtype is qint32:
        raise OptionError(f"{tensor} has 32 bits and cannot enter another stage; cut before it or behind what reads it")
    return ProgramInput(name=tensor, spec=spec, scale=program.scales[tensor])


def _metadata_of(program: Program, outputs: Sequence[ProgramOutput]) -> dict[str, str]:
    """Return the metadata, without the orders of outputs that another stage gives."""
    kept = {f"order.{output.name}" for output in outputs}
    return {key: text for key, text in program.metadata.items() if not key.startswith("order.") or key in kept}
