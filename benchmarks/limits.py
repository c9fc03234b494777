"""What the machine allows: a Program's products at the speed of its multipliers, its bytes at that of memory."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from math import prod
from pathlib import Path

from bpu_kernels import Program, TensorSpec
from bpu_kernels.engine.positive import positive_tensors
from bpu_kernels.fields import leaves

__all__ = ["least_seconds", "measured"]

SOURCE = Path(__file__).with_name("limits.cpp")


@cache
def measured() -> dict[str, float]:
    """Return the limits of one core, in 10^9 a second; none without a compiler.

    "int8" are products with inputs that have no negative values, "int8_signed" with any, "copy" bytes read and written.
    """
    compiler = shutil.which("c++")
    if compiler is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "limits")
        subprocess.run([compiler, "-O2", "-std=c++17", str(SOURCE), "-o", str(program)], check=True)
        printed = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    return {name: float(value) for name, value in (line.split() for line in printed.splitlines())}


def least_seconds(program: Program, threads: int) -> dict[str, float]:
    """Return how long all products take at the multipliers' speed, and all tensors and weights at memory's."""
    limits, specs, positive = measured(), program.specs, positive_tensors(program)
    products = {"int8": 0, "int8_signed": 0}
    moved = 0
    for node in program.nodes:
        inputs = [specs[name] for name in node.inputs]
        products["int8" if node.inputs[0] in positive else "int8_signed"] += node.kernel.macs(*inputs)
        moved += sum(map(_bytes, (*inputs, specs[node.output])))
        moved += sum(leaf.value.nbytes for leaf in leaves(node.kernel) if leaf.is_array)
    found = {}
    if "int8" in limits:
        found["limit of multipliers"] = sum(count / limits[name] for name, count in products.items()) / 1e9 / threads
    if "copy" in limits:
        found["memory without caches"] = moved / limits["copy"] / 1e9
    return found


def _bytes(spec: TensorSpec) -> int:
    return prod(spec.shape) * spec.dtype.bits // 8
