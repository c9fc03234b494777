"""The fields of kernels, read from their type hints: what each may hold, and a walk over them.

Checks, files and tables treat every operator through this walk, so none of them knows an operator by name. A field is
an integer, a truth value, a text, a type, a tuple of integers, an array, or a dataclass of such fields (or None).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from reprlib import repr as shortened
from typing import Any, get_args, get_type_hints

import numpy as np

from .dtypes import DTYPES, QuantDType
from .errors import InvalidProgramError
from .fixed_point import Array
from .kernel import Kernel

__all__ = ["ArrayRule", "IntegerRule", "Leaf", "array_rule", "channel_problems", "leaves", "malformed", "map_arrays"]


@dataclass(frozen=True)
class ArrayRule:
    """How the integers of an array field are stored."""

    stored: str = "int32"
    """numpy's name of the type."""
    spatial_axes_and: int | None = None
    """Number of axes beyond the kernel's spatial ones; None where ``shape`` rules."""
    shape: tuple[int, ...] | None = None
    """The exact shape; None with ``spatial_axes_and`` None too: one axis, one entry or one per output channel."""


@dataclass(frozen=True)
class IntegerRule:
    """The range of an integer field, or of the entries of a tuple field."""

    least: int = -(2**31)
    per_spatial_axis: bool = False
    """Whether a tuple has one entry per spatial axis of the kernel."""


_MOST = 2**31 - 1

ARRAYS: dict[str, ArrayRule] = {
    "values": ArrayRule("int16"),
    "weight": ArrayRule("int8", spatial_axes_and=2),
    "table": ArrayRule("int8", shape=(256,)),
    "tables": ArrayRule("int16", shape=(6, 64)),
    **{f"line.{name}": ArrayRule(shape=(8,)) for name in ("k", "b", "add_lsh", "sum_rsh", "max")},
}
"""Array fields by path; what is not here is a parameter, one entry or one per output channel. No shape: one axis."""

INTEGERS: dict[str, IntegerRule] = {
    "axis": IntegerRule(0),
    "dilation": IntegerRule(1, per_spatial_axis=True),
    "groups": IntegerRule(1),
    "areas": IntegerRule(0),
    "k": IntegerRule(1),
    "kernel": IntegerRule(1, per_spatial_axis=True),
    "output_padding": IntegerRule(0, per_spatial_axis=True),
    "pad": IntegerRule(0, per_spatial_axis=True),
    "samples": IntegerRule(1),
    "shift": IntegerRule(0),
    "size": IntegerRule(1, per_spatial_axis=True),
    "stride": IntegerRule(1, per_spatial_axis=True),
}
"""Integer and tuple fields whose range matters for shapes."""


@dataclass(frozen=True)
class Leaf:
    """A field without fields of its own."""

    path: str
    """Names from the kernel down, joined by dots: ``multiplier.output_scale``."""
    hint: object
    """Its type: int, bool, str, QuantDType, ``tuple[int, ...]`` or Array."""
    value: Any

    @property
    def is_array(self) -> bool:
        """Whether it holds integers of an array."""
        return self.hint is Array


def _field_types(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


field_types: Callable[[Any], dict[str, Any]] = cache(_field_types)
"""Returns the fields of a dataclass and their types, in order."""


def nested(hint: Any) -> tuple[type | None, bool]:
    """Return the dataclass that a type names, if any, and whether None is allowed in its place."""
    options = get_args(hint) if type(None) in get_args(hint) else (hint,)
    found = next((option for option in options if dataclasses.is_dataclass(option) and option is not QuantDType), None)
    return (found if isinstance(found, type) else None), len(options) > 1


def leaves(record: Any, prefix: str = "") -> Iterator[Leaf]:
    """Yield every leaf of a kernel, depth first; a field that is None where it may be has none.

    Raises:
        InvalidProgramError: a nested field holds something else than its dataclass.
    """
    for name, hint in field_types(type(record)).items():
        value, (cls, optional) = getattr(record, name), nested(hint)
        if cls is None:
            yield Leaf(prefix + name, hint, value)
        elif type(value) is cls:
            yield from leaves(value, f"{prefix}{name}.")
        elif not (optional and value is None):
            raise InvalidProgramError(f"{prefix}{name} must be a {cls.__name__}, got {type(value).__name__}")


def map_arrays(record: Any, convert: Callable[[str, Any], Any], prefix: str = "") -> Any:
    """Return the record with every array replaced by ``convert(path, array)``."""
    changed: dict[str, Any] = {}
    for name, hint in field_types(type(record)).items():
        value = getattr(record, name)
        if hint is Array:
            changed[name] = convert(prefix + name, value)
        elif nested(hint)[0] is not None and value is not None:
            changed[name] = map_arrays(value, convert, f"{prefix}{name}.")
    return dataclasses.replace(record, **changed)


def array_rule(path: str) -> ArrayRule:
    """Return the rule of an array field."""
    return ARRAYS.get(path, ArrayRule())


def stored_array(path: str, value: Any) -> np.ndarray:
    """Return a read-only copy of an array field in the type that Programs store.

    Raises:
        InvalidProgramError: no integers, or not within that type.
    """
    stored = np.dtype(array_rule(path).stored)
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise InvalidProgramError(f"{path} must hold integers, got {array.dtype}")
    copy = array.astype(stored, order="C")
    if not np.array_equal(copy, array):
        raise InvalidProgramError(f"{path} holds {array.min()}..{array.max()}, beyond {stored}")
    copy.setflags(write=False)
    return copy


def malformed(kernel: Kernel) -> list[str]:
    """Return what of a kernel's fields is not of the type, shape or range that they must have, whatever the march."""
    try:
        return [reason for leaf in leaves(kernel) for reason in _leaf_problems(leaf, kernel.rank)]
    except InvalidProgramError as error:
        return [str(error)]


def channel_problems(kernel: Kernel, channels: int) -> list[str]:
    """Return which parameter arrays have neither one entry nor one per output channel."""
    return [
        f"{leaf.path} has {len(leaf.value)} entries (expected: 1 or {channels}, one per output channel)"
        for leaf in leaves(kernel)
        if leaf.is_array and array_rule(leaf.path) == ArrayRule() and len(leaf.value) not in (1, channels)
    ]


def _leaf_problems(leaf: Leaf, rank: int) -> list[str]:
    if leaf.is_array:
        return _array_problems(leaf.path, leaf.value, rank)
    if leaf.hint is int:
        return _integer_problems(leaf.path, (leaf.value,), None)
    if leaf.hint == tuple[int, ...]:
        if not isinstance(leaf.value, tuple):
            return [f"{leaf.path} must be a tuple, got {type(leaf.value).__name__}"]
        return _integer_problems(leaf.path, leaf.value, rank)
    if leaf.hint is QuantDType:
        known = any(leaf.value is dtype for dtype in DTYPES.values())
        return [] if known else [f"{leaf.path} must be one of {', '.join(DTYPES)}, got {shortened(leaf.value)}"]
    assert isinstance(leaf.hint, type), f"{leaf.path} has type {leaf.hint}, which Programs do not store"
    shown = f"{leaf.path} must be {leaf.hint.__name__}, got {shortened(leaf.value)}"
    return [] if type(leaf.value) is leaf.hint else [shown]


def _integer_problems(path: str, values: tuple[Any, ...], rank: int | None) -> list[str]:
    rule = INTEGERS.get(path, IntegerRule())
    if any(type(value) is not int or not rule.least <= value <= _MOST for value in values):
        shown = shortened(values[0] if rank is None else values)
        return [f"{path} must hold integers of at least {rule.least}, got {shown}"]
    if rank is not None and rule.per_spatial_axis and len(values) != rank:
        return [f"{path} needs {rank} entries, one per spatial axis, got {shortened(values)}"]
    return []


def _array_problems(path: str, value: Any, rank: int) -> list[str]:
    rule = array_rule(path)
    if not isinstance(value, np.ndarray) or value.dtype != np.dtype(rule.stored):
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        return [f"{path} must be a numpy array of {rule.stored}, got {kind}"]
    axes = 1 if rule.spatial_axes_and is None else rank + rule.spatial_axes_and
    if (rule.shape is None and value.ndim != axes) or (rule.shape is not None and value.shape != rule.shape):
        return [f"{path} has shape {value.shape} (expected: {rule.shape or f'{axes} axes'})"]
    return [] if value.size else [f"{path} is empty"]
