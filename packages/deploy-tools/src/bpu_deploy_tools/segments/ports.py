"""Ports: the tensors at the borders of segments, and the manifest that lists them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_flatten_with_path

import bpu_kernels
from bpu_kernels import Program
from bpu_kernels.whole_file import replace_file
from bpu_qat_nn import QTensor

from ..errors import ManifestError
from ..lowering.layout import channels_last
from ..lowering.leaf_names import leaf_name
from ..lowering.orders import stored_order

__all__ = [
    "Manifest",
    "ManifestEntry",
    "Port",
    "named_tensors",
    "program_inputs",
    "program_outputs",
    "value_ports",
]

VERSION = 1
"""Of the manifest's form."""


@dataclass(frozen=True, kw_only=True)
class Port:
    """A tensor that a segment takes or gives."""

    name: str
    shape: tuple[int, ...]
    """In the order of torch's axes."""
    dtype: str
    """"qint8", "qint16" or "qint32" for integers, otherwise a type of torch, e.g. "float32"."""
    scale: tuple[float, ...] | None = None
    """Real value of one integer step, one or one per channel; None for real values."""
    order: tuple[int, ...] | None = None
    """Of a Program's tensor: stored axis i is axis ``order[i]`` of ``shape``; None: as in torch."""


@dataclass(frozen=True, kw_only=True)
class ManifestEntry:
    """A segment."""

    name: str
    runs_on: str
    """"bpu" (its Program is the file ``<name>.bpu``) or "cpu"."""
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The segments in the order in which they run; outputs go to the inputs of the same name.

    Where both sides have the same type and scale, integers are handed over as they are. Where an output has a scale and
    the input of the same name has another or none, its integers times its scale are handed over.
    """

    march: str
    segments: tuple[ManifestEntry, ...]

    def to_json(self) -> str:
        """Return it as text."""
        return json.dumps({"version": VERSION, **asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read what ``to_json`` wrote.

        Raises:
            ManifestError: it is no manifest of this version.
        """
        try:
            read = json.loads(text)
            if read["version"] != VERSION:
                raise ManifestError(f"expected a manifest of version {VERSION}, got version {read['version']}")
            return cls(march=str(read["march"]), segments=tuple(map(_entry, read["segments"])))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            if isinstance(error, ManifestError):
                raise
            raise ManifestError(f"expected a manifest as Manifest.to_json writes it: {error!r}") from error

    def save(self, folder: str | Path, programs: Mapping[str, Program]) -> None:
        """Write ``manifest.json`` and the Programs, ``<name>.bpu``, into a folder, which is made if need be."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / "manifest.json", self.to_json().encode())
        for name, program in programs.items():
            bpu_kernels.save(program, folder / f"{name}.bpu")

    def __str__(self) -> str:
        lines = []
        for entry in self.segments:
            lines.append(f"{entry.name} ({entry.runs_on})")
            lines += [f"  in   {_shown(port)}" for port in entry.inputs]
            lines += [f"  out  {_shown(port)}" for port in entry.outputs]
        return "\n".join(lines)


def _shown(port: Port) -> str:
    scale = "" if port.scale is None else f", scale {port.scale[0]:.6g}{', ...' * (len(port.scale) > 1)}"
    return f"{port.name}: {port.dtype} {port.shape}{scale}"


def _entry(read: dict[str, Any]) -> ManifestEntry:
    ports = {side: tuple(map(_port, read[side])) for side in ("inputs", "outputs")}
    return ManifestEntry(name=str(read["name"]), runs_on=str(read["runs_on"]), **ports)


def _port(read: dict[str, Any]) -> Port:
    scale, order = read["scale"], read["order"]
    return Port(
        name=str(read["name"]),
        shape=tuple(map(int, read["shape"])),
        dtype=str(read["dtype"]),
        scale=None if scale is None else tuple(map(float, scale)),
        order=None if order is None else tuple(map(int, order)),
    )


def named_tensors(name: str, value: Any) -> dict[str, Tensor]:
    """Return the tensors of a value by name: the value's own, with the keys and indices that lead to each."""
    leaves, _ = tree_flatten_with_path({name: value})
    return {leaf_name(path): leaf for path, leaf in leaves if isinstance(leaf, Tensor)}


def value_ports(name: str, value: Any) -> list[Port]:
    """Return the ports of what a step on the CPU takes or gives under a name."""
    return [_value_port(each, tensor) for each, tensor in named_tensors(name, value).items()]


def _value_port(name: str, tensor: Tensor) -> Port:
    shape = tuple(tensor.shape)
    if isinstance(tensor, QTensor):
        scale: list[float] = tensor.scale.tolist()
        return Port(name=name, shape=shape, dtype=str(tensor.dtype), scale=tuple(scale))
    return Port(name=name, shape=shape, dtype=str(tensor.dtype).removeprefix("torch."))


def program_inputs(program: Program) -> tuple[Port, ...]:
    """Return the ports of a Program's inputs, which are stored channels-last."""
    orders = [channels_last(len(each.spec.shape)) for each in program.inputs]
    return tuple(
        _program_port(each.name, each.spec.shape, str(each.spec.dtype), each.scale, order)
        for each, order in zip(program.inputs, orders, strict=True)
    )


def program_outputs(program: Program) -> tuple[Port, ...]:
    """Return the ports of a Program's outputs, stored in the order that its metadata tells."""
    ports = []
    for each in program.outputs:
        order = stored_order(program, each)
        spec = program.specs[each.tensor]
        ports.append(_program_port(each.name, spec.shape, str(spec.dtype), program.scales[each.tensor], order))
    return tuple(ports)


def _program_port(
    name: str, stored: Sequence[int], dtype: str, scale: tuple[float, ...], order: tuple[int, ...]
) -> Port:
    shape = tuple(stored[order.index(axis)] for axis in range(len(order)))
    return Port(name=name, shape=shape, dtype=dtype, scale=scale, order=order)
