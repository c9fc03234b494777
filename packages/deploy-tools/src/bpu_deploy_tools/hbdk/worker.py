"""Builds an HBIR file from a list of builder calls; runs in its own process, with numpy and the vendor's hbdk alone.

``python worker.py CALLS.json ARRAYS.npz OUTPUT.hbir``. The builder aborts its process on bad parameters, so each call
is announced on stdout before it is made: the last line tells which one it was. This file imports nothing of ours, since
the toolkit may live in another Python.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np


def build(calls_path: str, arrays_path: str, output_path: str) -> None:
    """Make the calls and write the model."""
    from hbdk import hbir_base, hbir_helper  # type: ignore[import-not-found]

    modules = {"base": hbir_base, "helper": hbir_helper}
    types = {"int8": hbir_helper.int8, "int16": hbir_helper.int16, "int32": hbir_helper.int32}
    with open(calls_path) as file:
        spec = json.load(file)
    arrays = np.load(arrays_path, allow_pickle=False)
    hbir_helper.CleanUpContext()
    hbir_helper.SetSQuantiScope(True)
    tensors: dict[str, Any] = {}

    def resolve(value: Any) -> Any:
        if isinstance(value, list):
            return [resolve(item) for item in value]
        if not isinstance(value, dict):
            return value
        ((kind, content),) = value.items()
        if kind == "tensor":
            return tensors[content]
        if kind == "array":  # the builder takes Python integers only
            return [int(number) for number in arrays[content].reshape(-1)]
        if kind == "tuple":
            return tuple(resolve(item) for item in content)
        if kind == "type":
            return types[content]
        if kind == "table16":
            return table16(content)
        raise ValueError(kind)

    def line_of(numbers: list[int]) -> Any:
        line = hbir_base.Lut2AttrRange()
        line.k, line.b, line.add_lsh, line.sum_rsh, line.max = numbers
        return line

    def table16(content: dict[str, Any]) -> Any:
        """Make the attributes of a segment table; the lines are left, six zones, right."""
        left, *zones, right = map(line_of, content["lines"])
        attributes = hbir_base.Lut2Attr()
        attributes.left_line_range, attributes.right_line_range = left, right
        ranges, tables = hbir_base.Lut2TableRange(), hbir_base.Lut2TableValue()
        for index, (zone, row) in enumerate(zip(zones, content["tables"], strict=True)):
            ranges[index], tables[index] = zone, tuple(row)
        attributes.table_zone_ranges, attributes.tables = ranges, tables
        attributes.symmetry_mode, attributes.enable_saturate = 0, True
        attributes.round_mode = content["round_mode"]
        return attributes

    for call in spec["calls"]:
        print("building", call["node"], call["function"], flush=True)
        function = getattr(modules[call["module"]], call["function"])
        arguments = [resolve(value) for value in call["args"]]
        options = {name: resolve(value) for name, value in call["kwargs"].items()}
        made = function(*arguments, **options)
        tensors[call["result"]] = made
        if not isinstance(made, str):  # several tensors
            tensors.update({f"{call['result']}.{index}": each for index, each in enumerate(made)})
    print("building", "(model)", "Model", flush=True)
    outputs = [tensors[name] for name in spec["outputs"]]
    model = hbir_helper.Model(outputs)
    model.AddInputOutputOrderLayer("io_order", [tensors[name] for name in spec["inputs"]], outputs)
    model.SerializeToFile(output_path)
    print(json.dumps({"outputs": outputs}), flush=True)


if __name__ == "__main__":
    build(*sys.argv[1:4])
