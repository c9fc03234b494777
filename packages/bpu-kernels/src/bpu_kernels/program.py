"""Program: a quantized network as plain data, a flat list of integer operators that every backend reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np

from . import check
from .difference import describe_difference
from .engine.backend import forget_plans
from .errors import ArgumentError, Problem, SelfTestError
from .fields import leaves
from .inputs import stored_inputs
from .kernel import TensorSpec
from .march import March
from .program_graph import ProgramGraph, SelfTest
from .run import run

__all__ = ["Cost", "Program"]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a node, or a whole Program, takes."""

    macs: int
    """Multiply-accumulate operations."""
    parameter_bytes: int
    """Weights, biases, tables, multipliers as stored."""
    output_bytes: int
    """Activations that are written."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Program(ProgramGraph):
    """A quantized network for one march; every instance is valid when made.

    Raises:
        InvalidProgramError: it is not well formed; ``problems`` lists every place and reason.
        UnsupportedError: it is well formed, but the march cannot run it.
    """

    def __post_init__(self) -> None:
        object.__setattr__(self, "march", March(self.march))
        self.validate()

    def validate(self) -> None:
        """Check everything again, as after a change to an array of a kernel; raises as the constructor does."""
        forget_plans(self)
        check.validate(self)

    @cached_property
    def costs(self) -> dict[str, Cost]:
        """What every node takes, by its name."""
        return {
            node.name: Cost(
                macs=node.kernel.macs(*(self.specs[name] for name in node.inputs)),
                parameter_bytes=sum(leaf.value.nbytes for leaf in leaves(node.kernel) if leaf.is_array),
                output_bytes=_bytes(self.specs[node.output]),
            )
            for node in self.nodes
        }

    @property
    def cost(self) -> Cost:
        """What the whole takes."""
        parts = self.costs.values()
        return Cost(
            macs=sum(part.macs for part in parts),
            parameter_bytes=sum(part.parameter_bytes for part in parts),
            output_bytes=sum(part.output_bytes for part in parts),
        )

    def with_self_test(self, inputs: Mapping[str, np.ndarray] | np.ndarray) -> Program:
        """Return this Program with a self-test: these inputs and what the reference gives for them."""
        test = SelfTest(inputs=stored_inputs(self, inputs), outputs=run(self, inputs, backend="numpy"))
        return replace(self, self_test=test)

    def check_self_test(self, backend: str = "numpy") -> None:
        """Run the self-test.

        Raises:
            ArgumentError: there is none.
            SelfTestError: an output differs; the message says where.
        """
        if self.self_test is None:
            raise ArgumentError("the Program carries no self-test; add one by program.with_self_test(inputs)")
        got = run(self, self.self_test.inputs, backend=backend)
        differences = {
            name: describe_difference(got[name], expected) for name, expected in self.self_test.outputs.items()
        }
        if any(differences.values()):
            problems = [Problem(name, (difference,)) for name, difference in differences.items() if difference]
            raise SelfTestError(f"backend {backend} fails the self-test:", problems)


def _bytes(spec: TensorSpec) -> int:
    return prod(spec.shape) * spec.dtype.bits // 8
