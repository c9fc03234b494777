"""What is in an ``.hbm`` file: its models, their inputs and outputs as the Program had them, and its layers' names.

The compiler stores a description with each model. Ours is one JSON text with what the tools forget: names of outputs,
shapes of fewer than four axes, scales, the order of torch's axes, and which node each layer stands for.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bpu_kernels import Program, ProgramInput, TensorSpec
from bpu_kernels.dtypes import DTYPES

from .errors import HbdkError
from .plan import Plan
from .process import Limits
from .tools import Toolkit, find_toolkit

__all__ = ["HbmModel", "HbmOutput", "describe", "models_of", "program_interface", "read_hbm"]

FORMAT = "bpu-hbm-1"


@dataclass(frozen=True, kw_only=True)
class HbmOutput:
    """An output of a compiled model."""

    name: str
    spec: TensorSpec
    """Shape and type as the Program has them."""
    scale: tuple[float, ...] = ()
    """Real value of one step; one, one per channel, or none where the file does not tell."""
    order: str = ""
    """Stored axis i is that axis of the torch tensor."""


@dataclass(frozen=True, kw_only=True)
class HbmModel:
    """One model of a file."""

    name: str
    inputs: tuple[ProgramInput, ...]
    """The scale is empty where the file does not tell."""
    outputs: tuple[HbmOutput, ...]
    layers: Mapping[str, str]
    """Name of a layer -> name of the Program's node; empty for files that others made."""


def program_interface(program: Program, name: str, layers: Mapping[str, str]) -> HbmModel:
    """Return what the compiled model of a Program takes and gives."""
    return HbmModel(
        name=name,
        inputs=program.inputs,
        outputs=tuple(
            HbmOutput(
                name=each.name,
                spec=program.specs[each.tensor],
                scale=program.scales[each.tensor],
                order=program.metadata.get(f"order.{each.name}", ""),
            )
            for each in program.outputs
        ),
        layers=layers,
    )


def describe(program: Program, name: str, planned: Plan) -> str:
    """Return the description to store with a model."""
    model = program_interface(program, name, planned.layers)
    content = {
        "format": FORMAT,
        "inputs": [_to_json(each) | {"source": each.source} for each in model.inputs],
        "outputs": [_to_json(each) | {"order": each.order} for each in model.outputs],
        "unnamed_outputs": planned.unnamed_outputs,
        "layers": dict(model.layers),
    }
    return json.dumps(content, separators=(",", ":"))


def _to_json(each: ProgramInput | HbmOutput) -> dict[str, Any]:
    shape, dtype = list(each.spec.shape), str(each.spec.dtype)
    return {"name": each.name, "shape": shape, "dtype": dtype, "scale": list(each.scale)}


def read_hbm(
    path: str | os.PathLike[str], *, toolkit: Toolkit | None = None, limits: Limits | None = None
) -> dict[str, HbmModel]:
    """Return the models of an ``.hbm`` file by name; the vendor's disassembler reads it, in a process of its own.

    Raises:
        OSError: the file cannot be read.
        HbdkError: the disassembler cannot read it, or its description is malformed.
    """
    toolkit, limits = toolkit or find_toolkit(), limits or Limits(seconds=120, memory_gib=8)
    source = Path(path).resolve()
    source.open("rb").close()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "models.json"
        try:
            toolkit.run(["hbdk-disas", str(source), "--json", "-o", str(made)], cwd=Path(folder), limits=limits)
            text = made.read_text(errors="replace")
        except (HbdkError, OSError) as error:
            raise HbdkError(f"{path} is no .hbm file, or a damaged one: {error}") from error
    try:
        return models_of(text)
    except HbdkError as error:
        raise HbdkError(f"{path}: {error}") from error


def models_of(text: str) -> dict[str, HbmModel]:
    """Return the models of what the disassembler wrote, by name.

    Raises:
        HbdkError: it is not what a disassembler writes.
    """
    try:
        models = [_model(each) for each in json.loads(text)]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise HbdkError(f"the description of a model is malformed: {error!r}") from error
    return {model.name: model for model in models}


def _model(found: dict[str, Any]) -> HbmModel:
    name, given = str(found["model name"]), _description(found.get("description", ""))
    taken, made = found["input features"], found["output features"]
    if given is None:
        inputs = tuple(ProgramInput(**_foreign(each), source=str(each["input source"]).lower()) for each in taken)
        return HbmModel(
            name=name, inputs=inputs, outputs=tuple(HbmOutput(**_foreign(each)) for each in made), layers={}
        )
    count = len(given["outputs"]) + int(given.get("unnamed_outputs", 0))
    if (len(given["inputs"]), count) != (len(taken), len(made)):
        raise ValueError("it has other inputs or outputs than the model")
    return HbmModel(
        name=name,
        inputs=tuple(ProgramInput(**_tensor(each), source=str(each["source"])) for each in given["inputs"]),
        outputs=tuple(HbmOutput(**_tensor(each), order=str(each["order"])) for each in given["outputs"]),
        layers={str(layer): str(node) for layer, node in given["layers"].items()},
    )


def _description(text: str) -> dict[str, Any] | None:
    """Return our description; None if it is somebody else's."""
    try:
        given = json.loads(text)
    except ValueError:
        return None
    return given if isinstance(given, dict) and given.get("format") == FORMAT else None


def _tensor(given: dict[str, Any]) -> dict[str, Any]:
    shape = tuple(int(length) for length in given["shape"])
    if not shape or min(shape) < 1:
        raise ValueError(f"shape {shape}")
    spec = TensorSpec(shape, DTYPES[given["dtype"]])
    return {"name": str(given["name"]), "spec": spec, "scale": tuple(float(value) for value in given["scale"])}


def _foreign(feature: dict[str, Any]) -> dict[str, Any]:
    """Return a tensor as the tools describe it."""
    shape = tuple(int(length) for length in feature["valid dim"])
    spec = TensorSpec(shape, DTYPES[f"q{feature['element type name']}"])
    return {"name": str(feature["feature name"]), "spec": spec, "scale": ()}
