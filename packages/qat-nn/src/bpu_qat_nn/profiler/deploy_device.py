"""``check_deploy_device``: which operators of a prepared or converted model run on the BPU, and which on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import nn
from torch.fx import GraphModule, Node

from bpu_kernels.whole_file import expect_folder

from ..errors import ArgumentError
from ..flow import is_wrapped
from ..moves import MOVING_MODULES
from ..op import Operator
from ..ops.stubs import QATDeQuantStub, QATQuantStub, QuantizedDeQuantStub, QuantizedQuantStub
from ..text_table import text_table, write_text
from .places import is_functional, kind_of, places

__all__ = ["check_deploy_device"]

_STUBS = (QATQuantStub, QuantizedQuantStub, QATDeQuantStub, QuantizedDeQuantStub)


def check_deploy_device(
    model: nn.Module, print_tabulate: bool = True, out_dir: str | None = None
) -> dict[str, tuple[str, str]]:
    """Return where each operator runs: ("BPU", class) or ("CPU", class) by path, functions by the name of their node.

    On the BPU runs what becomes part of a Program. Stubs are its borders, where the CPU rounds and multiplies by
    scales; in a hybrid model so are the operators in float. Of a model of the eager mode only modules are listed, since
    the functions in it are not known.

    Args:
        model: prepared, hybrid or not, or converted.
        print_tabulate: print a table.
        out_dir: folder for deploy_device.txt; None writes nothing.

    Raises:
        ArgumentError: nothing in the model is quantized.
    """
    expect_folder(out_dir)
    if not any(isinstance(module, Operator) for module in model.modules()):
        raise ArgumentError("expected a prepared or converted model; in a float model nothing is quantized yet")
    found = dict(_of_graph(model) if isinstance(model, GraphModule) else _of_modules(model))
    table = text_table(("name", "device", "type"), [(name, *where) for name, where in found.items()])
    if print_tabulate:
        print(table)
    if out_dir is not None:
        write_text(Path(out_dir, "deploy_device.txt"), table)
    return found


def _of_modules(model: nn.Module) -> Iterator[tuple[str, tuple[str, str]]]:
    for path, module in places(model):
        yield path, ("BPU" if _is_integer(module) else "CPU", kind_of(module))


def _is_integer(module: nn.Module) -> bool:
    return isinstance(module, Operator) and not isinstance(module, _STUBS)


def _of_graph(model: GraphModule) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the nodes that compute; what only moves elements runs where they are."""
    modules = dict(model.named_modules(remove_duplicate=False))
    quantized: set[Node] = set()
    for node in model.graph.nodes:
        path, module = _called(node, modules)
        if node.op in ("placeholder", "get_attr", "output"):
            continue
        if isinstance(module, (QATQuantStub, QuantizedQuantStub)):
            quantized.add(node)
        elif module is not None:
            on_bpu = _is_integer(module) or (isinstance(module, MOVING_MODULES) and _reads(node, quantized))
            quantized.update([node] if on_bpu else [])
        elif _reads(node, quantized) and not is_wrapped(node, modules):
            quantized.add(node)
        is_stub = isinstance(module, _STUBS)
        kind = kind_of(module) if module is not None else str(getattr(node.target, "__name__", node.target))
        yield path, ("BPU" if node in quantized and not is_stub else "CPU", kind)


def _called(node: Node, modules: dict[str, nn.Module]) -> tuple[str, nn.Module | None]:
    """Return path and module that a node calls, itself or by a method; a function's name and None."""
    first = node.args[0] if node.op == "call_method" and node.args else None
    if isinstance(first, Node) and first.op == "get_attr":
        module = modules.get(str(first.target))
        if module is not None and is_functional(module):
            return str(first.target), module
    return (str(node.target), modules[str(node.target)]) if node.op == "call_module" else (node.name, None)


def _reads(node: Node, quantized: set[Node]) -> bool:
    return not quantized.isdisjoint(node.all_input_nodes)
