"""``check_unfused_operations``: layers of a float model that could be one operator and are not, with the reason."""

from __future__ import annotations

from typing import Any

from torch import nn

from bpu_fx_fusion import GraphModuleWithAttr, fuse_fx

from ..errors import ArgumentError
from ..op import Operator
from ..text_table import text_table
from .called_count import get_module_called_count
from .counterparts import as_graph
from .places import kind_of

__all__ = ["check_unfused_operations"]

_CAN = "fuse_fx and prepare_qat_fx fuse what has no reason here; in the eager mode fuse_modules is told what to fuse."


def check_unfused_operations(model: nn.Module, example_inputs: Any, print_tabulate: bool = True) -> list[list[str]]:
    """Return the groups of modules that a fusion pattern takes for one operator and that are separate in this model.

    Of a model that was not fused these are all groups, those that ``fuse_fx`` will fuse first. Of a fused one they are
    those that stay separate. Each is printed with the reason.

    Args:
        model: a float model, fused or not.
        example_inputs: a tensor, a tuple of what forward takes, or a dict of it by name.
        print_tabulate: print a table for each group; ``(shared)`` marks modules that are called several times.

    Returns:
        for each group the paths of its modules, in order of execution.

    Raises:
        ArgumentError: the model is prepared or converted.
        TraceError: it cannot be traced.
    """
    if any(isinstance(module, Operator) for module in model.modules()):
        raise ArgumentError("expected a float model, got one that is prepared or converted: fusing comes before")
    before = len(model.fusion_report.fused) if isinstance(model, GraphModuleWithAttr) else 0
    traced = fuse_fx(model, example_inputs=example_inputs)
    report = traced.fusion_report
    found = [(list(group.members), "") for group in report.fused[before:]]
    found += [(list(group.members), group.reason) for group in report.not_fused]
    if print_tabulate:
        counts = get_module_called_count(model, example_inputs, print_tabulate=False)
        modules = dict(as_graph(model, traced, example_inputs).named_modules(remove_duplicate=False))
        for members, reason in found:
            rows = [(_shown(path, counts), kind_of(modules[path])) for path in members]
            print(text_table(("name", "type"), rows), *([reason] if reason else []), "", sep="\n")
        print(_CAN if len(report.fused) > before else "Everything that a pattern fuses is fused.")
    return [members for members, _ in found]


def _shown(path: str, counts: dict[str, int]) -> str:
    return f"{path}(shared)" if counts.get(path, 0) > 1 else path
