"""The operators in torch's own registry, ``torch.ops.bpu.<kernel>``: what tracing, export and compilation record.

There is one registered operator per kernel, with the kernel's fields as its arguments, and ``quantize`` and
``dequantize`` at the borders of the integer part. Each has a fake form, which tells shape and type, so that torch can
capture a model without running it. A captured model therefore names every integer operation with all its parameters;
``kernel_of`` brings a recorded call back to the kernel.

Beside the fields, a call has: ``inputs``, tensors as ``run`` takes them; ``scale`` and ``scale_axis``, what one step of
the output means and along which axis (-1: one scale), which no value depends on; ``march``; ``narrow``, see ``finish``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..dtypes import QuantDType, quant_dtype
from ..fields import field_types, nested
from ..fixed_point import Array
from ..kernel import Kernel, TensorSpec
from ..march import march_row
from ..ops.constant import Constant
from ..table import KERNELS
from .run import CHANNEL_FIRST, channel_first, run

__all__ = ["NAMESPACE", "Call", "call", "call_of", "dequantize", "quantize"]

NAMESPACE = "bpu"

_TYPES: dict[Any, str] = {int: "int", bool: "bool", str: "str", QuantDType: "str", tuple[int, ...]: "int[]"}
"""Type of a kernel's field -> its type in an operator's schema."""
_COMMON = "Tensor[] inputs, Tensor scale, int scale_axis, str march, bool narrow"

_library: Any = torch.library.Library(NAMESPACE, "DEF")  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class _Field:
    """A leaf of a kernel: path with dots, type, and whether it may be missing."""

    path: str
    hint: Any
    optional: bool

    @property
    def schema(self) -> str:
        kind = f"Tensor{'?' if self.optional else ''}" if self.hint is Array else _TYPES[self.hint]
        return f"{kind} {self.path.replace('.', '_')}"


def _fields(cls: Any, prefix: str = "", optional: bool = False) -> Iterator[_Field]:
    for name, hint in field_types(cls).items():
        inner, may_miss = nested(hint)
        if inner is None:
            yield _Field(prefix + name, hint, optional)
        else:
            yield from _fields(inner, f"{prefix}{name}.", optional or may_miss)


_FIELDS = {name: tuple(_fields(cls)) for name, cls in KERNELS.items()}


def _value(kernel: Any, field: _Field) -> Any:
    found = kernel
    for name in field.path.split("."):
        found = None if found is None else getattr(found, name)
    if isinstance(found, QuantDType):
        return str(found)
    return list(found) if isinstance(found, tuple) else found


def _rebuilt(cls: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    """Return a kernel, or a part of one; None for a part of which nothing is there."""
    given: dict[str, Any] = {}
    for name, hint in field_types(cls).items():
        inner, _ = nested(hint)
        path = prefix + name
        given[name] = _leaf(values[path], hint) if inner is None else _rebuilt(inner, values, f"{path}.")
    return None if prefix and all(value is None for value in given.values()) else cls(**given)


def _leaf(value: Any, hint: Any) -> Any:
    if hint is QuantDType:
        return quant_dtype(value)
    return tuple(value) if hint == tuple[int, ...] else value


def _kernel(name: str, values: Sequence[Any]) -> Kernel:
    by_path = {field.path: value for field, value in zip(_FIELDS[name], values, strict=True)}
    kernel: Kernel = _rebuilt(KERNELS[name], by_path)
    return kernel


def call(kernel: Kernel, march: str, *inputs: Tensor, scale: Tensor, axis: int = -1, narrow: bool = False) -> Tensor:
    """Call the registered operator of a kernel; the integers of ``run``."""
    values = [_value(kernel, field) for field in _FIELDS[kernel.name]]
    result: Tensor = getattr(torch.ops.bpu, kernel.name)(list(inputs), scale, axis, march, narrow, *values)
    return result


@dataclass(frozen=True, eq=False)
class Call:
    """A recorded call of an operator."""

    kernel: Kernel
    inputs: tuple[Any, ...]
    scale: Tensor
    axis: int
    march: str
    narrow: bool


def call_of(name: str, arguments: Sequence[Any]) -> Call:
    """Bring the arguments of ``torch.ops.bpu.<name>`` back to what ``call`` was given."""
    inputs, scale, axis, march, narrow, *values = arguments
    return Call(_kernel(name, values), tuple(inputs), scale, axis, march, narrow)


def _implementation(name: str) -> Callable[..., Tensor]:
    def compute(inputs: list[Tensor], scale: Tensor, axis: int, march: str, narrow: bool, *values: Any) -> Tensor:
        y = run(_kernel(name, values), march_row(march), *inputs, narrow=narrow).contiguous()
        return y.clone() if any(y.data_ptr() == x.data_ptr() for x in inputs) else y  # operators may not alias

    return compute


def _fake(name: str) -> Callable[..., Tensor]:
    def shape_of(inputs: list[Tensor], scale: Tensor, axis: int, march: str, narrow: bool, *values: Any) -> Tensor:
        kernel = _kernel(name, values)
        if isinstance(kernel, Constant):
            return scale.new_empty(kernel.shape, dtype=getattr(torch, f"int{kernel.dtype.bits}"))
        maps = channel_first(type(kernel), len(inputs))
        moved = [x.movedim(1, -1) if is_map else x for x, is_map in zip(inputs, maps, strict=True)]
        spec = kernel.infer(*(TensorSpec(tuple(x.shape), quant_dtype(str(x.dtype))) for x in moved))
        shape = spec.shape
        if type(kernel) in CHANNEL_FIRST:
            shape = (shape[0], shape[-1], *shape[1:-1])
        return scale.new_empty(shape, dtype=getattr(torch, f"int{spec.dtype.bits}"))

    return shape_of


def quantize(x: Tensor, scale: Tensor, dtype: QuantDType) -> Tensor:
    """Round real numbers, as float32, to the nearest step, ties to even, and saturate.

    Args:
        x: real numbers.
        scale: float32, [1].
        dtype: of the steps.
    """
    steps = (x.to(torch.float32) / scale.reshape(())).round().clamp(dtype.min, dtype.max)  # no axes: float32 division
    return steps.to(getattr(torch, f"int{dtype.bits}"))


def dequantize(x: Tensor, scale: Tensor, axis: int = -1) -> Tensor:
    """Multiply steps by their scale, in float32.

    Args:
        x: int8, int16 or int32.
        scale: float32, [1], or [C] along ``axis``.
        axis: of a scale per channel; -1 for one scale.
    """
    along = scale if axis < 0 else scale.reshape([-1 if i == axis else 1 for i in range(x.dim())])
    return x.to(torch.float32) * along


def _register() -> None:
    for name, fields in _FIELDS.items():
        _library.define(f"{name}({', '.join([_COMMON, *(field.schema for field in fields)])}) -> Tensor")
        _library.impl(name, _implementation(name), "CompositeExplicitAutograd")
        torch.library.register_fake(f"{NAMESPACE}::{name}", _fake(name), lib=_library)
    _library.define("quantize(Tensor x, Tensor scale, str dtype, str march) -> Tensor")
    _library.define("dequantize(Tensor x, Tensor scale, int axis) -> Tensor")
    for key in ("CompositeExplicitAutograd", "Meta"):
        _library.impl("quantize", lambda x, scale, dtype, march: quantize(x, scale, quant_dtype(dtype)), key)
        _library.impl("dequantize", dequantize, key)


_register()
