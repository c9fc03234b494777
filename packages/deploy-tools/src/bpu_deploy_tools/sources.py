"""What functions of this package take where they need Programs: converted models, captured ones, Programs, files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from bpu_kernels import March, Program, load
from bpu_qat_nn import ObservedGraphModule, QuantizedGraphModule

from .errors import SourceError
from .lowering.captured import is_captured, lower_captured
from .lowering.eager import row_of_converted
from .lowering.lower import lower
from .segments.split_segments import Segments

__all__ = ["program_of", "programs_of", "with_sources"]

InputSource = str | Sequence[str] | Mapping[str, str]
"""For all inputs, one after the other, or by name."""


def programs_of(
    module: Any, example_inputs: Any, *, march: object = None, input_source: InputSource = "ddr"
) -> list[Program]:
    """Return the Programs of one model, or of several segments.

    Args:
        module: what ``program_of`` takes, a list or tuple of these, or what ``split_segments`` returned.
        example_inputs: of the model; for several segments a list or tuple of theirs, or None where all are Programs.
        march: as of ``program_of``.
        input_source: as of ``with_sources``, of each segment's inputs; what ``split_segments`` returned has its own.
    """
    if isinstance(module, Segments):
        if input_source != "ddr":
            raise SourceError("segments know where their inputs come from; give input_source to split_segments")
        module, example_inputs = [part.program for part in module if part.program is not None], None
    if not isinstance(module, (list, tuple)):
        return [program_of(module, example_inputs, march=march, input_source=input_source)]
    given = [None] * len(module) if example_inputs is None else list(example_inputs)
    if len(given) != len(module) or not module:
        raise SourceError(f"expected example inputs for each of {len(module)} segments, got {len(given)}")
    pairs = zip(module, given, strict=True)
    return [program_of(part, inputs, march=march, input_source=input_source) for part, inputs in pairs]


def program_of(module: Any, example_inputs: Any, *, march: object = None, input_source: InputSource = "ddr") -> Program:
    """Return the Program of a model.

    Args:
        module: a converted model, one that was traced or exported by torch, a Program, or the path of a Program's file.
        example_inputs: real inputs of the model, of which the shapes count; None for a Program.
        march: None, or the march that the model must be for.
        input_source: see ``with_sources``.

    Raises:
        SourceError: no Program can be made of such a thing, or it is for another march.
        LoweringError: the model has no integer form; the message names the place.
        UnsupportedError: the march cannot run it; the message lists every place and reason.
    """
    program = with_sources(_made(module, example_inputs), input_source)
    if march is not None and program.march != March(str(getattr(march, "value", march))):
        raise SourceError(f"the model was converted for {program.march}, not for {march}; convert it under that march")
    return program


def _made(module: Any, example_inputs: Any) -> Program:
    if isinstance(module, Program):
        return module
    if isinstance(module, (str, os.PathLike)):
        return load(module)
    if isinstance(module, ObservedGraphModule):
        raise SourceError("the model is still under QAT; convert it first: quantized = convert_fx(model)")
    is_model = isinstance(module, torch.nn.Module)
    is_converted = isinstance(module, QuantizedGraphModule) or (is_model and row_of_converted(module) is not None)
    if is_converted or is_captured(module):
        if example_inputs is None:
            raise SourceError("a model needs example inputs, which give the shapes")
        return lower(module, example_inputs) if is_converted else lower_captured(module, example_inputs)
    kind = f"{type(module).__module__}.{type(module).__qualname__}"
    hint = (
        "; pass the model that prepare_qat_fx and convert_fx made of it" if isinstance(module, torch.nn.Module) else ""
    )
    raise SourceError(f"expected a converted model, a Program or the path of one, got {kind}{hint}")


def with_sources(program: Program, input_source: InputSource) -> Program:
    """Return the Program with its inputs coming from elsewhere.

    Args:
        program: as it is made.
        input_source: "ddr" leaves a Program as it is; "pyramid" or "resizer" count for all inputs; a list names the
            source of each input in order, a mapping that of some by name.

    Raises:
        SourceError: too few sources, or an unknown name.
        InvalidProgramError: an input cannot come from there.
    """
    names = [each.name for each in program.inputs]
    if isinstance(input_source, str):
        wanted = {} if input_source == "ddr" else dict.fromkeys(names, input_source)
    elif isinstance(input_source, Mapping):
        wanted = dict(input_source)
    else:
        if len(input_source) != len(names):
            raise SourceError(f"expected the sources of {len(names)} inputs ({', '.join(names)}), got {input_source}")
        wanted = dict(zip(names, input_source, strict=True))
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise SourceError(f"no input {', '.join(map(repr, unknown))}; the model has {', '.join(names)}")
    if all(wanted.get(each.name, each.source) == each.source for each in program.inputs):
        return program
    inputs = tuple(replace(each, source=wanted.get(each.name, each.source)) for each in program.inputs)
    return replace(program, inputs=inputs)
