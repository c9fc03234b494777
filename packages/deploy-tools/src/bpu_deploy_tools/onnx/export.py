"""Writing ONNX files: of Programs, of converted models, of models under QAT, of float models."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch

from bpu_kernels import Program
from bpu_kernels.whole_file import expect_place, replace_file
from bpu_qat_nn import ObservedGraphModule, convert, convert_fx
from bpu_qat_nn.qat_module import QATModule

from ..errors import BpuDeployError, OptionError
from ..sources import program_of

__all__ = ["OnnxNotFoundError", "export_program_to_onnx", "export_quantized_onnx", "export_to_onnx"]

File = str | os.PathLike[str] | io.IOBase
FORMS = ("integer", "qdq")
MOST_BYTES = 2**31 - 1
"""Of an ONNX file that holds its own weights."""


class OnnxNotFoundError(BpuDeployError, ImportError):
    """The package onnx is not installed."""


def export_program_to_onnx(
    program: Program | str | os.PathLike[str],
    f: File,
    *,
    form: str = "integer",
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> None:
    """Write a Program as an ONNX model of opset 21, checked by the ONNX checker.

    ``form="integer"`` takes and gives the Program's integers, feature maps channels-last, and is bit-exact in ONNX
    Runtime and in the ONNX reference evaluator; scales are in its metadata. ``form="qdq"`` takes and gives real numbers
    with torch's axes and differs from the board's integers by rounding. On x86 processors without VNNI the int8 kernels
    that ONNX Runtime makes of a QDQ model saturate sums of two products; set ``session.x64quantprecision`` to 1 there.

    Args:
        program: a Program, or the path of its file.
        f: a path, or a file that is open for writing.
        form: "integer" or "qdq".
        input_names: of the model, in order; the Program's by default.
        output_names: likewise.

    Raises:
        OnnxNotFoundError: the package onnx is not installed.
        OptionError: another form, names that do not fit, or more weights than an ONNX file can hold.
    """
    if form not in FORMS:
        raise OptionError(f"expected form among {', '.join(FORMS)}; got {form!r}")
    _expect_ready(f)
    from .model import integer_model, qdq_model, renamed

    made = program_of(program, None)
    model = integer_model(made) if form == "integer" else qdq_model(made)
    for kind, names in (("input", input_names), ("output", output_names)):
        if names is not None:
            renamed(model, kind, names)
    if model.ByteSize() > MOST_BYTES:
        raise OptionError(f"the model takes {model.ByteSize():,} bytes (allowed: {MOST_BYTES:,})")
    content = model.SerializeToString()
    if isinstance(f, (str, os.PathLike)):
        replace_file(f, content)
    else:
        f.write(content)


def export_to_onnx(
    model: torch.nn.Module,
    args: Any,
    f: File,
    export_params: bool = True,
    verbose: bool = False,
    training: Any = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    operator_export_type: Any = None,
    opset_version: int = 11,
    do_constant_folding: bool = True,
    dynamic_axes: Any = None,
    keep_initializers_as_inputs: bool | None = None,
    custom_opsets: Any = None,
) -> None:
    """Write a float model, or one under QAT, as ONNX; a model under QAT with QuantizeLinear and DequantizeLinear.

    A model under QAT is exported as it is in VALIDATION state: weights int8 per channel, activations int8 or int16,
    which needs opset 21. A float model is handed to ``torch.onnx.export`` with these arguments and ``dynamo=False``;
    for the exporter that is based on torch.export call ``torch.onnx.export(..., dynamo=True)``, which needs onnxscript.

    Args:
        model: made by ``prepare_qat_fx`` (calibrated or trained), or any float module.
        args: example inputs, a tensor or a tuple.
        f: a path, or a file that is open for writing.
        export_params: False is refused for a model under QAT: its weights are what is quantized.
        verbose: as of torch, for float models.
        training: accepted for compatibility; models are exported for inference.
        input_names: of the ONNX model.
        output_names: of the ONNX model.
        operator_export_type: accepted for compatibility.
        opset_version: the least opset wanted; models under QAT get 21.
        do_constant_folding: as of torch, for float models.
        dynamic_axes: for float models; a quantized one has the shapes of the example.
        keep_initializers_as_inputs: as of torch, for float models.
        custom_opsets: as of torch, for float models.

    Raises:
        OnnxNotFoundError: the package onnx is not installed.
        OptionError: an option that a model under QAT cannot have.
        LoweringError: a part of a model under QAT has no integer form.
    """
    _expect_ready(f)
    if any(isinstance(module, QATModule) for module in model.modules()):
        if not export_params or dynamic_axes:
            raise OptionError("a model under QAT is exported with its weights and with fixed shapes")
        quantized = convert_fx(model) if isinstance(model, ObservedGraphModule) else convert(model)
        program = program_of(quantized, args)
        export_program_to_onnx(program, f, form="qdq", input_names=input_names, output_names=output_names)
        return
    given = {
        "export_params": export_params,
        "verbose": verbose,
        "input_names": input_names,
        "output_names": output_names,
        "opset_version": opset_version,
        "do_constant_folding": do_constant_folding,
        "dynamic_axes": dynamic_axes,
        "keep_initializers_as_inputs": keep_initializers_as_inputs,
        "custom_opsets": custom_opsets,
    }
    arguments = args if isinstance(args, tuple) else (args,)
    # The older of torch's exporters writes the opsets that the vendor's converters read, takes these arguments and
    # needs no further package. That torch warns of it, and of what it calls itself, is nothing that callers can act on.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(model, arguments, f, dynamo=False, **given)  # type: ignore[arg-type]


def export_quantized_onnx(
    model: Any,
    args: Any,
    f: File,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    **others: Any,
) -> None:
    """Write a converted model as integer ONNX operators, bit for bit; see ``export_program_to_onnx``.

    Args:
        model: what ``program_of`` takes: a converted model, a captured one, a Program.
        args: example inputs (None for a Program).
        f: a path, or a file that is open for writing.
        input_names: of the ONNX model.
        output_names: of the ONNX model.
        others: further arguments of ``torch.onnx.export``; accepted for compatibility.
    """
    _expect_ready(f)
    export_program_to_onnx(program_of(model, args), f, input_names=input_names, output_names=output_names)


def _expect_ready(f: File) -> None:
    """Raise unless ONNX can be written there."""
    if find_spec("onnx") is None:
        raise OnnxNotFoundError("ONNX export needs the package onnx: pip install 'bpu-deploy-tools[onnx]'")
    if isinstance(f, (str, os.PathLike)):
        expect_place(f)
