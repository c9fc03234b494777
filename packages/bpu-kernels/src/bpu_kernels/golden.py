"""Check golden data: recorded integers of the vendor's simulator against the reference operators.

``python -m bpu_kernels.golden DIR`` checks every case below DIR, prints a table and a closing line, names every
difference and exits with 1 if there is any. The README of the golden data describes the format.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .dtypes import quant_dtype
from .errors import BpuKernelsError
from .fixed_point import Multiplier
from .kernel import IntArray, Kernel, TensorSpec
from .march import MarchRow, march_row
from .multiplier import Bias, ResidualScale
from .ops.choose import Gather, TopIndices
from .ops.concat import Concat
from .ops.conv import Conv2d
from .ops.conv_transpose import ConvTranspose2d
from .ops.elementwise import Add, AddScaled, Extremum, Mul, Relu, Rescale
from .ops.input import nv12_to_yuv444
from .ops.linear import Linear, Matmul
from .ops.lut import Lut8, Lut16, SegmentLine
from .ops.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from .ops.reduce import ArgExtremum, ReduceExtremum, Sum
from .ops.resize import ResizeBilinear

__all__ = ["Outcome", "check_directory", "main"]

Params = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Outcome:
    """One compared output."""

    name: str
    """File or net, then case or output."""
    values: int
    differing: int


def _ints(p: Params, key: str) -> IntArray:
    return np.asarray(p.get(key, [0]), np.int64)


def _multiplier(p: Params) -> Multiplier:
    return Multiplier(
        accu_right_shift=_ints(p, "accu_right_shift"),
        output_scale=_ints(p, "output_scale"),
        output_right_shift=_ints(p, "output_right_shift"),
    )


def _residual(p: Params) -> ResidualScale:
    return ResidualScale(sumin_scale=_ints(p, "sumin_scale"), sumin_left_shift=_ints(p, "sumin_left_shift"))


def _weighted(p: Params, a: Arrays) -> dict[str, Any]:
    bias = None
    if "bias" in p:
        bias = Bias(bias=a[p["bias"]].astype(np.int64), bias_left_shift=_ints(p, "bias_left_shift"))
    residual = _residual(p) if "sumin_scale" in p else None
    return {
        "weight": a[p["weight"]],
        "bias": bias,
        "multiplier": _multiplier(p),
        "residual": residual,
        "relu": p["relu"],
    }


def _spatial(p: Params, *names: str) -> dict[str, Any]:
    return {name: tuple(p[name]) for name in names}


def _lut16(p: Params, a: Arrays) -> Kernel:
    lines = [p["left"], *p["zones"], p["right"]]
    line = SegmentLine(**{key: np.array([entry.get(key, 0) for entry in lines]) for key in lines[1]})
    return Lut16(line=line, tables=a[p["table"]], rounds=p["round_mode"] == 2)


KERNEL_OF: dict[str, Callable[[Params, Arrays], Kernel]] = {
    "add": lambda p, a: Add(
        input_left_shift=_ints(p, "input_left_shift"),
        residual=_residual(p),
        multiplier=_multiplier(p),
        out_dtype=quant_dtype(p["out_dtype"]),
    ),
    "add_scaled": lambda p, a: AddScaled(
        input_scale=_ints(p, "input_scale"), sumin_scale=_ints(p, "sumin_scale"), multiplier=_multiplier(p)
    ),
    "arg_extremum": lambda p, a: ArgExtremum(axis=p["dim"], largest=p["largest"]),
    "avg_pool": lambda p, a: AvgPool2d(multiplier=_multiplier(p), **_spatial(p, "kernel", "stride", "pad")),
    "concat": lambda p, a: Concat(axis=p["dim"]),
    "conv2d": lambda p, a: Conv2d(
        groups=p["groups"],
        out_dtype=quant_dtype(p["out_dtype"]),
        **_weighted(p, a),
        **_spatial(p, "stride", "pad", "dilation"),
    ),
    "deconv2d": lambda p, a: ConvTranspose2d(
        output_padding=tuple(p["output_pad"]), **_weighted(p, a), **_spatial(p, "stride", "pad")
    ),
    "extremum": lambda p, a: Extremum(largest=p["largest"]),
    "gather": lambda p, a: Gather(axis=p["dim"]),
    "global_avg_pool": lambda p, a: GlobalAvgPool2d(multiplier=_multiplier(p)),
    "linear": lambda p, a: Linear(**_weighted(p, a)),
    "lut8": lambda p, a: Lut8(table=a[p["table"]]),
    "lut16": _lut16,
    "matmul": lambda p, a: Matmul(multiplier=_multiplier(p)),
    "max_pool": lambda p, a: MaxPool2d(**_spatial(p, "kernel", "stride", "pad")),
    "mul": lambda p, a: Mul(multiplier=_multiplier(p), out_dtype=quant_dtype(p["out_dtype"])),
    "reduce_extremum": lambda p, a: ReduceExtremum(axis=p["dim"], largest=p["largest"]),
    "relu": lambda p, a: Relu(),
    "rescale": lambda p, a: Rescale(multiplier=_multiplier(p), out_dtype=quant_dtype(p["out_dtype"])),
    "resize": lambda p, a: ResizeBilinear(
        size=tuple(p["size"]), align=p["align"], precision=p["precision"], legacy=p["legacy"]
    ),
    "sum": lambda p, a: Sum(axis=p["dim"], multiplier=_multiplier(p)),
    "top_indices": lambda p, a: TopIndices(axis=p["dim"], k=p["k"], largest=p["largest"]),
}
"""Operator name of the golden data -> the kernel that a case describes."""


def _evaluate(p: Params, a: Arrays, row: MarchRow, *inputs: IntArray) -> IntArray:
    if p["op"] == "nv12":
        return nv12_to_yuv444(a["yuv"], p["height"], p["width"])
    if p["op"] not in KERNEL_OF:
        raise BpuKernelsError(f"unknown operator {p['op']!r}; known are {', '.join(KERNEL_OF)}")
    kernel = KERNEL_OF[p["op"]](p, a)
    result = kernel.run(row, *inputs)
    described = kernel.infer(*(TensorSpec(value.shape, quant_dtype(value.dtype)) for value in inputs))
    if (described.shape, described.dtype.numpy) != (result.shape, result.dtype):
        raise BpuKernelsError(f"{kernel.name} gives {result.dtype}{result.shape} where its rule says {described}")
    return result


def _compare(name: str, got: IntArray, expected: IntArray) -> Outcome:
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return Outcome(
            f"{name} ({got.dtype}{got.shape} instead of {expected.dtype}{expected.shape})", expected.size, expected.size
        )
    return Outcome(name, expected.size, int(np.count_nonzero(got != expected)))


def check_cases(path: Path) -> Iterator[Outcome]:
    """Check one ``<march>/<operator>.npz``."""
    with np.load(path, allow_pickle=False) as stored:
        cases: dict[str, dict[str, np.ndarray]] = {}
        for key in stored.files:
            case, array = key.split("/")
            cases.setdefault(case, {})[array] = stored[key]
    for case, arrays in cases.items():
        p = json.loads(str(arrays.pop("params")))
        got = _evaluate(p, arrays, march_row(p["march"]), *(arrays[name] for name in p["inputs"]))
        yield _compare(f"{path.parent.name}/{path.stem} {case}", got, arrays["out"])


def check_net(folder: Path) -> Iterator[Outcome]:
    """Check one ``<march>/nets/<net>`` folder, feeding every operator what ours computed before it."""
    graph = json.loads((folder / "graph.json").read_text())
    tensors, values, expected = (
        dict(np.load(folder / f"{name}.npz", allow_pickle=False)) for name in ("tensors", "inputs", "outputs")
    )
    row = march_row(graph["march"])
    for node in graph["nodes"]:
        values[node["output"]] = _evaluate(node, tensors, row, *(values[name] for name in node["inputs"]))
    for name in graph["outputs"]:
        yield _compare(f"{graph['march']}/net {folder.name} {name}", values[name], expected[name])


def check_directory(root: Path) -> Iterator[Outcome]:
    """Check everything below a directory, in the order of paths.

    Raises:
        BpuKernelsError: the directory holds no golden data, or a file of it cannot be read.
    """
    paths = sorted([*root.rglob("*.npz"), *root.rglob("graph.json")])
    found = [path for path in paths if "nets" not in path.parts or path.name == "graph.json"]
    if not found:
        raise BpuKernelsError(f"no golden data (*.npz or nets/*/graph.json) below {root}")
    for path in found:
        try:
            yield from check_net(path.parent) if path.name == "graph.json" else check_cases(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BpuKernelsError(f"{path} is no readable golden data: {error!r}") from error


def report(outcomes: list[Outcome]) -> str:
    """Return a table of compared values per operator file, every difference, and a closing line."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.name.rsplit(" ", 1)[0], []).append(outcome)
    width = max(map(len, groups))
    lines = [f"{'golden data':{width}}  cases   values  differing"]
    for name, members in groups.items():
        values, differing = sum(o.values for o in members), sum(o.differing for o in members)
        lines.append(f"{name:{width}}  {len(members):5}  {values:7}  {differing:9}")
    lines += [f"DIFFERS: {o.name}: {o.differing} of {o.values} values" for o in outcomes if o.differing]
    total, wrong = sum(o.values for o in outcomes), sum(o.differing for o in outcomes)
    lines.append(f"{len(outcomes)} outputs, {total} values compared, {wrong} differ")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) != 1 or given[0].startswith("-"):
        print("usage: python -m bpu_kernels.golden DIR", file=sys.stderr)
        return 2
    try:
        outcomes = list(check_directory(Path(given[0])))
    except BpuKernelsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report(outcomes))
    return int(any(outcome.differing for outcome in outcomes))


if __name__ == "__main__":
    raise SystemExit(main())
