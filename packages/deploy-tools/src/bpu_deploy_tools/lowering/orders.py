"""How the axes of an output of torch lie in a Program, as its metadata tells."""

from __future__ import annotations

from collections.abc import Sequence

from bpu_kernels import Program, ProgramOutput

__all__ = ["order_entry", "stored_order"]


def order_entry(name: str, order: Sequence[int]) -> dict[str, str]:
    """Return the entry of the metadata for an output: stored axis i is axis ``order[i]`` of the torch tensor."""
    return {f"order.{name}": " ".join(map(str, order))}


def stored_order(program: Program, output: ProgramOutput) -> tuple[int, ...]:
    """Return the order of an output; as it is stored where the metadata has none."""
    found = program.metadata.get(f"order.{output.name}")
    return tuple(range(len(program.specs[output.tensor].shape))) if found is None else tuple(map(int, found.split()))
