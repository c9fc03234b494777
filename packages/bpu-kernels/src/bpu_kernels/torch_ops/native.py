"""Operators of torch tensors on the native engine: the very memory of CPU tensors, read and written without copies.

A feature map in torch's channels_last memory is the engine's layout under other names of the axes. An operator that is
given one returns one, so nothing is transposed between the operators of a model; any other layout is copied first.

Packing a kernel's parameters takes longer than a small layer's arithmetic, so what was packed is kept as long as the
tensor it was packed from, for the contents that this tensor and its neighbours have. A change that torch counts (its
version counter) is noticed; one through ``tensor.data`` is not, here as for autograd.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from ..dtypes import QuantDType
from ..engine.backend import native_engine
from ..engine.operator import OperatorPlan
from ..errors import InvalidProgramError
from ..fields import map_arrays
from ..kernel import Kernel, TensorSpec
from ..march import MarchRow
from ..ops.conv import Conv2d, Conv3d
from ..ops.conv_transpose import ConvTranspose2d
from ..ops.elementwise import Add, AddScaled, Mul, Rescale
from ..ops.linear import Linear
from ..ops.lut import Lut8, Lut16
from ..ops.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from ..ops.reduce import Sum
from ..ops.resize import ResizeBilinear
from .stored import QUANT_DTYPES, TORCH_DTYPES
from .tape import noted

__all__ = ["in_real_memory", "run_natively"]

FEATURE_MAPS = (AvgPool2d, Conv2d, Conv3d, ConvTranspose2d, GlobalAvgPool2d, MaxPool2d, ResizeBilinear)
"""Operators whose channels are the second axis here and the last one in a Program."""
ROWS = (Linear, Sum)
"""Operators whose axes are the tensor's own."""
TABLES = (Lut8, Lut16)
"""Operators that treat every element alike, in any order."""
ELEMENTWISE = (Add, AddScaled, Mul, Rescale)
"""Operators that do so unless they have parameters per channel, the tensor's last axis then."""
ASKS_FOR_SIGNS = (Conv2d, Conv3d, ConvTranspose2d, Linear)
"""Operators that are faster on inputs without negative values."""

_NATIVE = frozenset({*FEATURE_MAPS, *ROWS, *TABLES, *ELEMENTWISE})
"""The others only move elements, or torch is as fast: relu, the product of two activations."""
_KEPT = 16
"""So many contents, and so many plans of each, are kept per tensor: a head shared by a pyramid's levels has several."""


@dataclass(eq=False)
class _Packed:
    """What was packed from a kernel of these contents."""

    settings: tuple[object, ...]
    arrays: list[weakref.ref[Tensor]]
    versions: list[int]
    plans: dict[tuple[object, ...], OperatorPlan | None] = field(default_factory=dict)

    @cached_property
    def is_per_tensor(self) -> bool:
        """Whether every array has one entry."""
        return all(array is not None and array.numel() == 1 for array in (known() for known in self.arrays))

    def is_current(self) -> bool:
        """Whether its arrays still have the contents that were packed."""
        return all(
            (array := known()) is not None and _version(array) == version
            for known, version in zip(self.arrays, self.versions, strict=True)
        )

    def holds(self, settings: tuple[object, ...], arrays: list[Tensor]) -> bool:
        """Whether it was packed from a kernel of these settings and arrays."""
        same = self.settings == settings and len(self.arrays) == len(arrays)
        return same and all(known() is array for known, array in zip(self.arrays, arrays, strict=True))


_of_array: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""First array of a kernel -> what was packed from it; for kernels that torch's registry makes anew at every call."""
_of_kernel: weakref.WeakKeyDictionary[Kernel, _Packed | None] = weakref.WeakKeyDictionary()
"""The same for kernels that stay, None where the engine cannot take their arrays."""


def in_real_memory(*tensors: Tensor) -> bool:
    """Whether all are ordinary CPU tensors with elements, and nobody traces or transforms what runs on them."""
    return (
        all(type(each) is Tensor and each.is_cpu and each.numel() for each in tensors)
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
        and not torch.compiler.is_compiling()
    )


def run_natively(kernel: Kernel, row: MarchRow, inputs: Sequence[Tensor]) -> Tensor | None:
    """Return the output's integers, or None where the engine has no form for the operator or for these tensors."""
    engine = native_engine() if type(kernel) in _NATIVE and in_real_memory(*inputs) else None
    packed = None if engine is None else _packed(kernel)
    if engine is None or packed is None or not all(each.dtype in QUANT_DTYPES for each in inputs):
        return None
    order = _order(kernel, packed, inputs)
    ordered = [x.permute(order) if len(order) == x.dim() else x for x in inputs]
    operands = [x.contiguous() if x.dim() else x.reshape(1) for x in ordered]
    plan = _plan(kernel, row, packed, operands, engine)
    if plan is None:
        return None
    out = torch.empty(plan.out.shape, dtype=TORCH_DTYPES[plan.out.dtype])
    plan.run([x.data_ptr() for x in operands], out.data_ptr(), torch.get_num_threads())
    noted(kernel, row, ordered, out)
    if not any(x.dim() for x in inputs):
        return out.reshape(())
    return out.permute(_inverse(order)) if len(order) == out.dim() else out


def _packed(kernel: Kernel) -> _Packed | None:
    """Return what was packed from a kernel, maybe nothing yet; None if its arrays are none for the engine."""
    known = _of_kernel.get(kernel)
    if known is None or not known.is_current():
        known = _of_kernel[kernel] = _found(kernel)
    return known


def _found(kernel: Kernel) -> _Packed | None:
    values = list(_values(kernel))
    arrays = [value for value in values if isinstance(value, Tensor)]
    if not in_real_memory(*arrays) or not all(each.dtype in QUANT_DTYPES for each in arrays):
        return None
    settings = (type(kernel), *(None if isinstance(value, Tensor) else value for value in values))
    made = _Packed(settings, [weakref.ref(array) for array in arrays], [_version(array) for array in arrays])
    if not arrays:
        return made
    known: list[_Packed] = _of_array.setdefault(arrays[0], [])  # type: ignore[no-untyped-call]
    known[:] = [each for each in known if each.is_current()][-_KEPT:]
    found = next((each for each in known if each.holds(settings, arrays)), None)
    if found is None:
        known.append(made)
    return found or made


def _values(record: Any) -> Iterator[Any]:
    """Yield the leaves of a kernel: settings and arrays."""
    for value in vars(record).values():
        if hasattr(value, "__dataclass_fields__") and type(value) is not QuantDType:
            yield from _values(value)
        else:
            yield value


def _order(kernel: Kernel, packed: _Packed, inputs: Sequence[Tensor]) -> tuple[int, ...]:
    """Return the axes of the first input in the order in which the engine shall see them."""
    rank, first = inputs[0].dim(), inputs[0]
    own = tuple(range(rank))
    if type(kernel) in FEATURE_MAPS:
        return (0, *own[2:], 1)
    free = type(kernel) in TABLES or (type(kernel) in ELEMENTWISE and packed.is_per_tensor)
    alike = all(each.dim() == rank for each in inputs)
    return tuple(sorted(own, key=first.stride, reverse=True)) if free and alike else own


@cache
def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(order.index, range(len(order))))


def _plan(
    kernel: Kernel, row: MarchRow, packed: _Packed, operands: list[Tensor], engine: tuple[ctypes.CDLL, int]
) -> OperatorPlan | None:
    """Return the plan for a kernel and operands as the engine sees them, made if need be; None where there is none."""
    positive = type(kernel) in ASKS_FOR_SIGNS and int(operands[0].amin()) >= 0
    key = (row.march, engine[1], positive, *((x.shape, x.dtype) for x in operands))
    if key not in packed.plans:
        specs = [TensorSpec(tuple(x.shape), QUANT_DTYPES[x.dtype]) for x in operands]
        packed.plans[key] = _made(kernel, row, specs, positive, engine)
        for oldest in list(packed.plans)[:-_KEPT]:
            del packed.plans[oldest]
    return packed.plans[key]


def _made(
    kernel: Kernel, row: MarchRow, specs: Sequence[TensorSpec], positive: bool, engine: tuple[ctypes.CDLL, int]
) -> OperatorPlan | None:
    with_numpy: Kernel = map_arrays(kernel, lambda path, tensor: tensor.detach().contiguous().numpy())
    try:
        with_numpy.infer(*specs)
        if with_numpy.problems(row, *specs):  # the engine's memory is laid out for what a march takes
            return None
        return OperatorPlan(with_numpy, row, specs, positive=positive, library=engine[0], isa=engine[1])
    except InvalidProgramError:  # torch's form takes some shapes that no Program holds
        return None


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version
