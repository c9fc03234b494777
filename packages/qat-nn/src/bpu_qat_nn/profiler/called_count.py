"""``get_module_called_count``: how often a forward pass calls each module, so that shared ones stand out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from ..passes.forward import evaluated
from ..text_table import text_table
from .places import places
from .record import arguments_of
from .watch import Heard, watched

__all__ = ["get_module_called_count", "leaves_of"]


def get_module_called_count(
    model: nn.Module,
    example_inputs: Any,
    check_leaf_module: Callable[[nn.Module], bool] | None = None,
    print_tabulate: bool = True,
) -> dict[str, int]:
    """Return how often each module is called in one forward pass; 0 for those that never are.

    A FloatFunctional is called by its methods. A module that hangs at several paths counts at the first.

    Args:
        model: of any stage; afterwards as it was before.
        example_inputs: a tensor, a tuple of what forward takes, or a dict of it by name.
        check_leaf_module: tells whether a module counts as a whole; None: operators and modules without children do.
        print_tabulate: print a table.
    """
    leaves = leaves_of(model, check_leaf_module)
    counts = {path: 0 for path, _ in leaves}

    def count(heard: Heard, result: Any) -> None:
        counts[heard.path] += 1

    args, kwargs = arguments_of(example_inputs)
    with evaluated(model), watched(leaves, lambda args, kwargs: None, count):
        model(*args, **kwargs)
    if print_tabulate:
        print(text_table(("name", "called times"), [(name, str(times)) for name, times in counts.items()]))
    return counts


def leaves_of(model: nn.Module, is_leaf: Callable[[nn.Module], bool] | None) -> list[tuple[str, nn.Module]]:
    """Return (path, module) of what counts as a whole; None as of ``get_module_called_count``."""
    return list(places(model) if is_leaf is None else _leaves("", model, is_leaf))


def _leaves(path: str, module: nn.Module, is_leaf: Callable[[nn.Module], bool]) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that are leaves by the user's rule, or for want of children."""
    if is_leaf(module) or not module._modules:
        yield path, module
        return
    for name, child in module.named_children():
        yield from _leaves(f"{path}.{name}" if path else name, child, is_leaf)
