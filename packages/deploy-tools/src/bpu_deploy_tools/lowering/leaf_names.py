"""How the tensors within a structure of arguments or results are called."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["leaf_name"]


def leaf_name(path: Iterable[Any]) -> str:
    """Return the keys and indices that lead to a leaf, as torch's pytree gives them, as one name."""
    return "_".join(str(getattr(part, "key", getattr(part, "idx", getattr(part, "name", part)))) for part in path)
