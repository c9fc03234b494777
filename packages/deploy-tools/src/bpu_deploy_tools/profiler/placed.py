"""A Program that hands out the result of every place of the model that it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

import bpu_kernels
from bpu_kernels import Program

from ..lowering.lower import recorded, torch_outputs
from ..lowering.orders import order_entry
from ..lowering.recorder import Recorded, Recorder
from ..lowering.symbolic import SymbolicTensor

__all__ = ["PlacedProgram", "place_program", "placed"]


@dataclass(frozen=True, kw_only=True)
class PlacedProgram:
    """A Program, and which of its outputs is which place."""

    program: Program
    labels: Mapping[str, str]
    """Name of the output -> place: path of the module or function, with ``[i]`` behind it where it gives several."""

    def run(self, inputs: Mapping[str, Any], backend: str) -> dict[str, Tensor]:
        """Return the integers of every place, in torch's axes.

        Args:
            inputs: integers as they lie in memory, by name.
            backend: a name in ``bpu_kernels.BACKENDS``.
        """
        outputs = bpu_kernels.run(self.program, inputs, backend=backend)
        integers = torch_outputs(self.program, outputs, dequantized=False)
        return {label: integers[name] for name, label in self.labels.items()}


def place_program(quantized: nn.Module, arguments: tuple[Any, ...]) -> PlacedProgram:
    """Return the Program of a converted model with an output for each place; errors are those of ``lower``."""
    recorder, _ = recorded(quantized, arguments)
    return placed(recorder)


def placed(recorder: Recorder) -> PlacedProgram:
    """Return the Program of all places that were recorded.

    A value that only flattening has touched is left out, since to hand it out elements would have to move, which not
    every march can do; what it was made of is there.
    """
    outputs: dict[str, Recorded] = {}
    orders: dict[str, str] = {}
    labels: dict[str, str] = {}
    recorder.path = "to_output"
    for path, result in recorder.places.items():
        several = isinstance(result, (tuple, list))
        for index, each in enumerate(result if several else [result]):
            if isinstance(each, SymbolicTensor) and each.shuffle is None:
                name = f"place_{len(outputs)}"
                outputs[name], labels[name] = each.value, f"{path}[{index}]" if several else path
                orders |= order_entry(name, each.order)
    return PlacedProgram(program=recorder.program(outputs, orders), labels=labels)
