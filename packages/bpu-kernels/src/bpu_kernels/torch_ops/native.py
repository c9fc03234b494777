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
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from ..dtypes import QuantDType, quant_dtype
from ..engine.backend import native_library
from ..engine.operator import OperatorPlan
from ..engine.settings import isa_wanted
from ..errors import InvalidProgramError
from ..fields import map_arrays
from ..kernel import Kernel, TensorSpec
from ..march import MarchRow
from ..ops.conv import Conv2d, Conv3d
from ..ops.conv_transpose import ConvTranspose2d
from ..ops.elementwise import Add, AddScaled, Mul, Rescale
from ..ops.linear import Linear, Matmul
from ..ops.lut import Lut8, Lut16
from ..ops.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from ..ops.reduce import Sum
from ..ops.resize import ResizeBilinear

__all__ = ["in_real_memory", "run_natively"]

FEATURE_MAPS = (AvgPool2d, Conv2d, Conv3d, ConvTranspose2d, GlobalAvgPool2d, MaxPool2d, ResizeBilinear)
"""Operators whose channels are the second axis here and the last one in a Program."""
ROWS = (Linear, Matmul, Sum)
"""Operators whose axes are the tensor's own."""
TABLES = (Lut8, Lut16)
"""Operators that treat every element alike, in any order."""
ELEMENTWISE = (Add, AddScaled, Mul, Rescale)
"""Operators that do so unless they have parameters per channel, the tensor's last axis then."""
ASKS_FOR_SIGNS = (Conv2d, Conv3d, Linear)
"""Operators that are faster on inputs without negative values."""

_NATIVE = frozenset({*FEATURE_MAPS, *ROWS, *TABLES, *ELEMENTWISE})
_KEPT = 16
"""So many contents, and so many plans of each, are kept per tensor: a head shared by a pyramid's levels has several."""

_DTYPES = {torch.int8: "qint8", torch.int16: "qint16", torch.int32: "qint32"}


@dataclass(eq=False)
class _Packed:
    """What was packed from a kernel of these contents."""

    settings: tuple[object, ...]
    arrays: list[weakref.ref[Tensor]]
    versions: list[int]
    plans: dict[tuple[object, ...], OperatorPlan | None] = field(default_factory=dict)

    def holds(self, settings: tuple[object, ...], arrays: list[Tensor]) -> bool:
        """Whether a kernel has these contents still."""
        return (
            self.settings == settings
            and all(known() is array for known, array in zip(self.arrays, arrays, strict=True))
            and self.versions == [_version(array) for array in arrays]
        )


_packed: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""First array of a kernel -> what was packed from it."""


def in_real_memory(*tensors: Tensor) -> bool:
    """Whether all are ordinary CPU tensors with elements, and nobody traces, transforms or replaces what runs on them."""
    return (
        all(type(each) is Tensor and each.device.type == "cpu" and each.numel() for each in tensors)
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
        and not torch.compiler.is_compiling()
    )


def run_natively(kernel: Kernel, row: MarchRow, inputs: Sequence[Tensor]) -> Tensor | None:
    """Return the output's integers, or None where the engine has no form for the operator or for these tensors."""
    library = native_library()
    if library is None or type(kernel) not in _NATIVE or not in_real_memory(*inputs):
        return None
    values = list(_values(kernel))
    arrays = [value for value in values if isinstance(value, Tensor)]
    if not all(each.dtype in _DTYPES for each in (*inputs, *arrays)) or not in_real_memory(*arrays):
        return None
    order = _order(kernel, arrays, inputs)
    operands = [x.permute(order).contiguous() if len(order) == x.dim() else x.contiguous() for x in inputs]
    settings = (type(kernel), *(None if isinstance(value, Tensor) else value for value in values))
    plan = _plan(kernel, row, settings, arrays, operands, library)
    if plan is None:
        return None
    out = torch.empty(plan.out.shape, dtype=getattr(torch, f"int{plan.out.dtype.bits}"))
    plan.run([x.data_ptr() for x in operands], out.data_ptr(), torch.get_num_threads())
    return out.permute([order.index(axis) for axis in range(out.dim())]) if len(order) == out.dim() else out


def _values(record: Any) -> Iterator[Any]:
    """Yield the leaves of a kernel: settings and arrays."""
    for value in vars(record).values():
        if hasattr(value, "__dataclass_fields__") and type(value) is not QuantDType:
            yield from _values(value)
        else:
            yield value


def _order(kernel: Kernel, arrays: list[Tensor], inputs: Sequence[Tensor]) -> list[int]:
    """Return the axes of the first input in the order in which the engine shall see them."""
    rank, first = inputs[0].dim(), inputs[0]
    own = list(range(rank))
    if type(kernel) in FEATURE_MAPS:
        return [0, *own[2:], 1]
    free = type(kernel) in TABLES or (type(kernel) in ELEMENTWISE and all(each.numel() == 1 for each in arrays))
    alike = all(each.dim() == rank for each in inputs)
    return sorted(own, key=first.stride, reverse=True) if free and alike else own


def _plan(
    kernel: Kernel,
    row: MarchRow,
    settings: tuple[object, ...],
    arrays: list[Tensor],
    operands: list[Tensor],
    library: ctypes.CDLL,
) -> OperatorPlan | None:
    """Return the plan for a kernel and operands as the engine sees them, made if need be; None where there is none."""
    specs = tuple(TensorSpec(tuple(x.shape), quant_dtype(_DTYPES[x.dtype])) for x in operands)
    positive = type(kernel) in ASKS_FOR_SIGNS and int(operands[0].amin()) >= 0
    plans = _packed_from(settings, arrays).plans
    key = (specs, positive, row.march, isa_wanted())
    if key not in plans:
        plans[key] = _made(kernel, row, specs, positive, library)
        for oldest in list(plans)[:-_KEPT]:
            del plans[oldest]
    return plans[key]


def _packed_from(settings: tuple[object, ...], arrays: list[Tensor]) -> _Packed:
    if not arrays:
        return _Packed(settings, [], [])
    known: list[_Packed] = _packed.setdefault(arrays[0], [])
    for each in known:
        if each.holds(settings, arrays):
            return each
    made = _Packed(settings, [weakref.ref(array) for array in arrays], [_version(array) for array in arrays])
    known.append(made)
    del known[:-_KEPT]
    return made


def _made(
    kernel: Kernel, row: MarchRow, specs: Sequence[TensorSpec], positive: bool, library: ctypes.CDLL
) -> OperatorPlan | None:
    with_numpy: Kernel = map_arrays(kernel, lambda path, tensor: tensor.detach().contiguous().numpy())
    try:
        return OperatorPlan(with_numpy, row, specs, positive=positive, library=library, isa=isa_wanted())
    except InvalidProgramError:  # torch's form takes some shapes that no Program holds
        return None


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version
