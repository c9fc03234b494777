"""What a Program takes: the integers of each input, checked, from integers, an image in NV12 or real numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .errors import ArgumentError
from .kernel import IntArray
from .ops.input import nv12_to_yuv444
from .program_graph import ProgramGraph, ProgramInput

__all__ = ["prepare_inputs", "quantize_inputs", "stored_inputs"]


def prepare_inputs(program: ProgramGraph, inputs: Mapping[str, Any] | np.ndarray) -> dict[str, IntArray]:
    """Return the integers that the model sees of each input, by name; raises ArgumentError as ``run`` does."""
    named = _by_name(program, inputs)
    return {each.name: _prepare(each, np.asarray(named[each.name])) for each in program.inputs}


def stored_inputs(program: ProgramGraph, inputs: Mapping[str, Any] | np.ndarray) -> dict[str, np.ndarray]:
    """Return inputs as a self-test stores them: NV12 where NV12 was given, otherwise what the model sees."""
    named = {name: np.asarray(value) for name, value in _by_name(program, inputs).items()}
    images = {each.name for each in program.inputs if each.source != "ddr" and named[each.name].dtype == np.uint8}
    return {
        name: np.array(named[name]) if name in images else value
        for name, value in prepare_inputs(program, inputs).items()
    }


def quantize_inputs(program: ProgramGraph, real: Mapping[str, Any] | np.ndarray) -> dict[str, IntArray]:
    """Turn real inputs (NHWC) into integers: ``x / scale`` in float32, rounded half to even, saturated.

    Raises:
        ArgumentError: an input is missing, has another shape, or is not a number everywhere.
    """
    found: dict[str, IntArray] = {}
    for each in program.inputs:
        value = np.asarray(_by_name(program, real)[each.name], np.float32)
        if value.shape != each.spec.shape or np.isnan(value).any():
            raise ArgumentError(f"input {each.name}: expected real numbers of shape {each.spec.shape}, without NaN")
        steps = np.rint(value / np.asarray(each.scale, np.float32))
        found[each.name] = np.clip(steps, each.spec.dtype.min, each.spec.dtype.max).astype(each.spec.dtype.numpy)
    return found


def _by_name(program: ProgramGraph, inputs: Mapping[str, Any] | np.ndarray) -> Mapping[str, Any]:
    names = [each.name for each in program.inputs]
    if not isinstance(inputs, Mapping):
        if len(names) != 1:
            raise ArgumentError(f"this Program has {len(names)} inputs ({', '.join(names)}); give a mapping by name")
        return {names[0]: inputs}
    if set(inputs) != set(names):
        raise ArgumentError(f"expected the inputs {', '.join(names)}, got {', '.join(map(str, inputs)) or 'none'}")
    return inputs


def _prepare(each: ProgramInput, value: np.ndarray) -> IntArray:
    spec = each.spec
    if each.source != "ddr" and value.dtype == np.uint8:
        _, height, width, _ = spec.shape
        if value.size != height * width * 3 // 2:
            raise ArgumentError(
                f"input {each.name} from {each.source}: expected NV12 of {height * width * 3 // 2} bytes for "
                f"{height}x{width}, or centred YUV444 as int8 {spec.shape}; got {value.size} bytes"
            )
        return nv12_to_yuv444(value, height, width)
    if value.dtype.kind not in "iu":
        hint = " (quantize_inputs makes integers of real numbers)" if value.dtype.kind == "f" else ""
        raise ArgumentError(f"input {each.name}: expected {spec}, got {value.dtype}{hint}")
    if value.shape != spec.shape:
        raise ArgumentError(f"input {each.name}: expected the shape {spec.shape}, got {value.shape}")
    if value.dtype != spec.dtype.numpy and (value.min() < spec.dtype.min or value.max() > spec.dtype.max):
        raise ArgumentError(f"input {each.name}: values {value.min()}..{value.max()} leave the range of {spec.dtype}")
    return np.ascontiguousarray(value, spec.dtype.numpy)
