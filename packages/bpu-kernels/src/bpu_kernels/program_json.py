"""A Program as JSON and named tensors, and back; kernels are taken apart by their type hints, none by its name.

Everything that is read is checked: a key too many or too few, a value of another type, an unknown operator, a tensor
that is missing or left over are each an InvalidProgramError. What the parts mean is checked by Program itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from reprlib import repr as shortened
from typing import Any

import numpy as np

from .dtypes import DTYPES, QuantDType
from .errors import InvalidProgramError
from .fields import field_types, leaves, nested
from .fixed_point import Array
from .kernel import Kernel, TensorSpec
from .march import March
from .program import Program
from .program_graph import Node, ProgramInput, ProgramOutput, SelfTest
from .table import KERNELS

__all__ = ["program_from_json", "program_tensors", "program_to_json"]

Json = dict[str, Any]


def program_to_json(program: Program) -> Json:
    """Return everything but the arrays."""
    return {
        "march": str(program.march),
        "inputs": [
            {
                "name": each.name,
                "shape": list(each.spec.shape),
                "dtype": str(each.spec.dtype),
                "scale": list(each.scale),
                "source": each.source,
            }
            for each in program.inputs
        ],
        "nodes": [
            {
                "name": node.name,
                "op": node.kernel.name,
                "fields": _fields_to_json(node.kernel),
                "inputs": list(node.inputs),
                "output": node.output,
                "scale": list(node.scale),
            }
            for node in program.nodes
        ],
        "outputs": [{"name": each.name, "tensor": each.tensor} for each in program.outputs],
        "metadata": dict(program.metadata),
        "self_test": program.self_test is not None,
    }


def program_tensors(program: Program) -> dict[str, np.ndarray]:
    """Return the arrays: ``node/<node>/<field>``, ``self_test/input/<name>``, ``self_test/output/<name>``."""
    found = {
        f"node/{node.name}/{leaf.path}": leaf.value
        for node in program.nodes
        for leaf in leaves(node.kernel)
        if leaf.is_array
    }
    if program.self_test is not None:
        found |= {f"self_test/input/{name}": value for name, value in program.self_test.inputs.items()}
        found |= {f"self_test/output/{name}": value for name, value in program.self_test.outputs.items()}
    return found


def program_from_json(data: object, tensors: Mapping[str, np.ndarray]) -> Program:
    """Return the Program of both parts.

    Raises:
        InvalidProgramError: anything is not as ``program_to_json`` and ``program_tensors`` make it.
        UnsupportedError: the march cannot run it.
    """
    whole = _object(data, "program", "march", "inputs", "nodes", "outputs", "metadata", "self_test")
    rest = dict(tensors)

    def take(name: str) -> np.ndarray:
        if name not in rest:
            raise InvalidProgramError(f"the tensor {name!r} is missing")
        return rest.pop(name)

    march = _text(whole["march"], "march")
    if march not in {each.value for each in March}:
        raise InvalidProgramError(f"unknown march {shortened(march)}; known are {', '.join(March)}")
    inputs = tuple(_input(each, f"input {i}") for i, each in enumerate(_list(whole["inputs"], "inputs")))
    nodes = tuple(_node(each, f"node {i}", take) for i, each in enumerate(_list(whole["nodes"], "nodes")))
    outputs = tuple(_output(each, f"output {i}") for i, each in enumerate(_list(whole["outputs"], "outputs")))
    metadata = {key: _text(value, f"metadata {key!r}") for key, value in _dict(whole["metadata"], "metadata").items()}
    test = None
    if _bool(whole["self_test"], "self_test"):
        test = SelfTest(
            inputs={each.name: take(f"self_test/input/{each.name}") for each in inputs},
            outputs={each.name: take(f"self_test/output/{each.name}") for each in outputs},
        )
    if rest:
        raise InvalidProgramError(f"tensors that nothing uses: {', '.join(map(repr, sorted(rest)[:4]))}")
    return Program(march=March(march), inputs=inputs, nodes=nodes, outputs=outputs, metadata=metadata, self_test=test)


def _fields_to_json(record: Any) -> Json:
    """Return the fields of a kernel, or of a dataclass inside one, that are not arrays."""
    found: Json = {}
    for name, hint in field_types(type(record)).items():
        value = getattr(record, name)
        if hint is Array:
            continue
        if nested(hint)[0] is not None:
            found[name] = None if value is None else _fields_to_json(value)
        else:
            found[name] = list(value) if isinstance(value, tuple) else str(value) if hint is QuantDType else value
    return found


def _fields_from_json(cls: Any, data: object, where: str, take: Callable[[str], np.ndarray], prefix: str = "") -> Any:
    types = field_types(cls)
    given = _object(data, where, *(name for name, hint in types.items() if hint is not Array))
    values: dict[str, Any] = {}
    for name, hint in types.items():
        inner, optional = nested(hint)
        if hint is Array:
            values[name] = take(prefix + name)
        elif inner is None:
            values[name] = _leaf(given[name], hint)
        elif given[name] is None and optional:
            values[name] = None
        else:
            values[name] = _fields_from_json(inner, given[name], f"{where}.{name}", take, f"{prefix}{name}.")
    return cls(**values)


def _leaf(value: Any, hint: object) -> Any:
    """Undo what JSON cannot hold; ``fields.malformed`` finds values of other types."""
    if isinstance(value, list):
        return tuple(value)
    return DTYPES.get(value) if hint is QuantDType and isinstance(value, str) else value


def _input(data: object, where: str) -> ProgramInput:
    each = _object(data, where, "name", "shape", "dtype", "scale", "source")
    dtype = DTYPES.get(_text(each["dtype"], f"{where} dtype"))
    if dtype is None:
        raise InvalidProgramError(
            f"{where} has the unknown type {shortened(each['dtype'])}; known are {', '.join(DTYPES)}"
        )
    return ProgramInput(
        name=_text(each["name"], f"{where} name"),
        spec=TensorSpec(tuple(_list(each["shape"], f"{where} shape")), dtype),
        scale=_scale(each["scale"], where),
        source=_text(each["source"], f"{where} source"),
    )


def _node(data: object, where: str, take: Callable[[str], np.ndarray]) -> Node:
    each = _object(data, where, "name", "op", "fields", "inputs", "output", "scale")
    name, op = _text(each["name"], f"{where} name"), _text(each["op"], f"{where} op")
    cls: type[Kernel] | None = KERNELS.get(op)
    if cls is None:
        raise InvalidProgramError(f"{name}: unknown operator {shortened(op)}; known are {', '.join(KERNELS)}")
    return Node(
        name=name,
        kernel=_fields_from_json(cls, each["fields"], name, lambda path: take(f"node/{name}/{path}")),
        inputs=tuple(_text(tensor, f"{name} inputs") for tensor in _list(each["inputs"], f"{name} inputs")),
        output=_text(each["output"], f"{name} output"),
        scale=_scale(each["scale"], name),
    )


def _output(data: object, where: str) -> ProgramOutput:
    each = _object(data, where, "name", "tensor")
    return ProgramOutput(name=_text(each["name"], f"{where} name"), tensor=_text(each["tensor"], f"{where} tensor"))


def _scale(data: object, where: str) -> tuple[float, ...]:
    values = _list(data, f"{where} scale")
    if any(type(value) is not float for value in values):
        raise InvalidProgramError(f"{where} scale: expected real numbers, got {values[:4]!r}")
    return tuple(values)


def _typed(kind: type, what: str) -> Callable[[object, str], Any]:
    def check(value: object, where: str) -> Any:
        if type(value) is not kind:
            raise InvalidProgramError(f"{where}: expected {what}, got {type(value).__name__}")
        return value

    return check


_text = _typed(str, "text")
_list = _typed(list, "a list")
_dict = _typed(dict, "an object")
_bool = _typed(bool, "true or false")


def _object(value: object, where: str, *keys: str) -> Json:
    found: Json = _dict(value, where)
    if set(found) != set(keys):
        unknown, missing = sorted(set(found) - set(keys)), sorted(set(keys) - set(found))
        parts = [f"unknown {unknown[:4]}"] * bool(unknown) + [f"missing {missing[:4]}"] * bool(missing)
        raise InvalidProgramError(f"{where}: {', '.join(parts)}")
    return found
