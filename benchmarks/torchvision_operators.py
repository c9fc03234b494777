"""Makes torchvision importable beside torch's CPU build, for what never calls its own operators."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["declare_operators"]

_libraries: list[torch.library.Library] = []
"""torch withdraws the operators of a library with the object."""


def declare_operators() -> None:
    """Declare the operators that torchvision expects of its library, which torch's CPU build does not load."""
    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)
