"""The fourth witness: run a compiled model in the vendor's simulator."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from bpu_kernels import ArgumentError, Program, ProgramInput, load
from bpu_kernels.kernel import IntArray

from .compile import compile_programs
from .errors import HbdkError
from .hbm import HbmModel, HbmOutput, program_interface, read_hbm
from .options import CompileOptions
from .process import Limits
from .tools import Toolkit, find_toolkit

__all__ = ["chosen_model", "simulate"]

NAME = "model"
"""Of a model that is compiled for one simulation."""


def simulate(
    model: Program | str | os.PathLike[str],
    inputs: Mapping[str, np.ndarray] | np.ndarray,
    *,
    name: str | None = None,
    toolkit: Toolkit | None = None,
    limits: Limits | None = None,
) -> dict[str, IntArray]:
    """Return the integers that the vendor's simulator computes, by the names of the outputs.

    Args:
        model: the path of an ``.hbm`` file; or a Program, or the path of its file, which is compiled without
            optimization first.
        inputs: by name, or one array where there is one input; integers as stored for ddr, NV12 as uint8 for pyramid
            and resizer (a whole image, not scaled).
        name: which model of an ``.hbm`` file that holds several.
        toolkit: by default the one that ``find_toolkit`` finds.
        limits: of each program that runs.

    Raises:
        ArgumentError: an input is missing or of another size, or the file has no model of that name.
        HbdkError: a program of the toolkit broke or ran into a limit; a refusal is an HbdkRefusalError.
    """
    toolkit, limits = toolkit or find_toolkit(), limits or Limits()
    if not isinstance(model, Program) and Path(model).suffix == ".hbm":
        found = chosen_model(read_hbm(model, toolkit=toolkit, limits=limits), name)
        return _simulated(Path(model).resolve(), found, inputs, toolkit, limits)
    program = model if isinstance(model, Program) else load(model)
    interface = program_interface(program, NAME, {})
    _files_content(interface.inputs, inputs)  # refused before it is compiled
    with tempfile.TemporaryDirectory() as folder:
        hbm = Path(folder) / f"{NAME}.hbm"
        options = CompileOptions(opt="O0", output_layout="NHWC", input_layout="NHWC", jobs=2, debug=False)
        compile_programs({NAME: program}, hbm, options, toolkit=toolkit, limits=limits)
        return _simulated(hbm, interface, inputs, toolkit, limits)


def chosen_model(models: Mapping[str, HbmModel], name: str | None) -> HbmModel:
    """Return a model of a compiled file by name; None for the only one."""
    names = ", ".join(models)
    if name is None and len(models) != 1:
        raise ArgumentError(f"the file has {len(models)} models ({names}); choose one by name=")
    chosen = next(iter(models)) if name is None else name
    if chosen not in models:
        raise ArgumentError(f"the file has no model {chosen!r}; it has {names}")
    return models[chosen]


def _simulated(
    hbm: Path,
    model: HbmModel,
    inputs: Mapping[str, np.ndarray] | np.ndarray,
    toolkit: Toolkit,
    limits: Limits,
) -> dict[str, IntArray]:
    contents = _files_content(model.inputs, inputs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = []
        for index, (each, content) in enumerate(zip(model.inputs, contents, strict=True)):
            paths.append(folder / f"input{index}.{'bin' if each.source == 'ddr' else 'yuv'}")
            paths[-1].write_bytes(content)
        made = folder / "out"
        made.mkdir()
        command = ["hbdk-sim", "-f", str(hbm), "-n", model.name, "-i", ",".join(map(str, paths))]
        command += [*_image_options(model.inputs), "-o", str(made)]
        toolkit.run(command, cwd=folder, limits=limits)
        return {each.name: _read_output(made, index, each) for index, each in enumerate(model.outputs)}


def _files_content(tensors: Sequence[ProgramInput], inputs: Mapping[str, np.ndarray] | np.ndarray) -> list[bytes]:
    """Return the bytes of each input's file.

    Raises:
        ArgumentError: an input is missing or of another size or type.
    """
    names = [each.name for each in tensors]
    if not isinstance(inputs, Mapping):
        if len(names) != 1:
            raise ArgumentError(f"the model has {len(names)} inputs ({', '.join(names)}); give a mapping by name")
        inputs = {names[0]: inputs}
    if set(inputs) != set(names):
        raise ArgumentError(f"expected the inputs {', '.join(names)}, got {', '.join(map(str, inputs)) or 'none'}")
    return [_content(each, np.asarray(inputs[each.name])) for each in tensors]


def _content(each: ProgramInput, value: np.ndarray) -> bytes:
    size = prod(each.spec.shape)
    dtype: np.dtype[Any] = each.spec.dtype.numpy
    if each.source != "ddr":
        size, dtype = size // 2, np.dtype(np.uint8)
    if value.size != size or value.dtype != dtype:
        what = "NV12" if each.source != "ddr" else str(each.spec)
        raise ArgumentError(
            f"input {each.name} from {each.source}: expected {what}, {size} numbers as {dtype}; "
            f"got {value.size} as {value.dtype}"
        )
    return np.ascontiguousarray(value).tobytes()


def _image_options(tensors: Sequence[ProgramInput]) -> list[str]:
    """Return size and region of camera inputs; each option has one entry per input, empty for integers."""
    if all(each.source == "ddr" for each in tensors):
        return []
    sizes = ["" if each.source == "ddr" else "x".join(map(str, each.spec.shape[1:3])) for each in tensors]
    options = {"--yuv-size": sizes}
    if any(each.source == "resizer" for each in tensors):
        regions = [size if each.source == "resizer" else "" for size, each in zip(sizes, tensors, strict=True)]
        options["--yuv-roi-coord"] = ["0x0" if region else "" for region in regions]
        options["--yuv-roi-size"] = regions
    return [part for option, values in options.items() for part in (option, ",".join(values))]


def _read_output(folder: Path, index: int, each: HbmOutput) -> IntArray:
    found = sorted(folder.glob(f"hbdk_output{index}_feature_*_elem_int.txt"))
    if not found:
        raise HbdkError(f"the simulator wrote no output {index}; it wrote {sorted(p.name for p in folder.iterdir())}")
    lines = [line for line in found[0].read_text().splitlines() if line and not line.startswith("#")]
    numbers = np.array(" ".join(lines).split(), np.int64)
    result: IntArray = numbers.reshape(each.spec.shape).astype(each.spec.dtype.numpy)
    return result
