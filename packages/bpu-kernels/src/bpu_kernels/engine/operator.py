"""OperatorPlan: one operator for inputs of given shapes and types, run on operands that are given as addresses."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence

from ..kernel import Kernel, TensorSpec
from ..march import MarchRow
from .library import create_plan, run_steps
from .steps import STEPS, Context
from .storage import INPUT, OUTPUT, Placed
from .words import Words

__all__ = ["OperatorPlan"]


class OperatorPlan:
    """A kernel packed for one library and instruction set; like a ``Plan``, threads may run it at the same time.

    Args:
        kernel: with numpy arrays, which are copied.
        row: the march.
        inputs: dense arrays, the channels last.
        positive: whether no value of any input is below 0, which kernels make use of; whoever runs the plan sees to it.
        library: of the engine.
        isa: position in ``ISAS``.

    Raises:
        InvalidProgramError: the inputs do not fit the kernel.
    """

    def __init__(
        self,
        kernel: Kernel,
        row: MarchRow,
        inputs: Sequence[TensorSpec],
        *,
        positive: bool,
        library: ctypes.CDLL,
        isa: int,
    ) -> None:
        self.out = kernel.infer(*inputs)
        words = Words()
        operands = tuple(Placed(INPUT, i, 0, _pitch(spec), spec, positive) for i, spec in enumerate(inputs))
        STEPS[type(kernel)](Context(words, row, operands, Placed(OUTPUT, 0, 0, _pitch(self.out), self.out)), kernel)
        self._library, self._steps = library, words.steps
        self._handle = create_plan(library, words, isa)
        weakref.finalize(self, library.bpu_plan_destroy, self._handle)

    def run(self, inputs: Sequence[int], out: int, threads: int) -> None:
        """Compute from the arrays at the addresses ``inputs`` the one at ``out``, of shape and type ``self.out``."""
        sources, targets = (ctypes.c_void_p * len(inputs))(*inputs), (ctypes.c_void_p * 1)(out)
        run_steps(self._library, self._handle, None, sources, targets, (0, self._steps), threads)


def _pitch(spec: TensorSpec) -> int:
    return spec.shape[-1]
