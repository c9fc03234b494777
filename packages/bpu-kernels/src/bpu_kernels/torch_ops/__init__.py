"""The operators on torch tensors: exact, on any device, in torch's layout. Needs torch (``bpu-kernels[torch]``).

``run(kernel, row, *inputs)`` gives the integers of ``kernel.run``. The kernels are the same classes, their arrays being
torch tensors on the inputs' device; weights keep the shape that the kernel documents (OHWI; a permuted view of torch's
OIHW is free). Feature maps of the operators in ``CHANNEL_FIRST`` are N, C, spatial; every other operator takes tensors
as they come, and its axes are the tensor's own.
"""

from __future__ import annotations

from .axes import in_order
from .contents import Contents
from .histogram import count_magnitudes
from .layer_pass import LayerPass, has_passes
from .native import in_real_memory
from .picked import picked, runs
from .ranges import Range, follow_ends, observe_rows, row_ends
from .run import CHANNEL_FIRST, channel_first, run, tensors_to_numpy
from .tape import Recording, Tape, open_tape, tape_of
from .training_pass import LayerTraining, OutputMask, Outputs, RowMask, Rows, row_values, train_rows
from .weighted import accumulate, finish

__all__ = [
    "CHANNEL_FIRST",
    "Contents",
    "LayerPass",
    "LayerTraining",
    "OutputMask",
    "Outputs",
    "Range",
    "Recording",
    "RowMask",
    "Rows",
    "Tape",
    "accumulate",
    "channel_first",
    "count_magnitudes",
    "finish",
    "follow_ends",
    "has_passes",
    "in_order",
    "in_real_memory",
    "observe_rows",
    "open_tape",
    "picked",
    "row_ends",
    "row_values",
    "run",
    "runs",
    "tape_of",
    "tensors_to_numpy",
    "train_rows",
]
