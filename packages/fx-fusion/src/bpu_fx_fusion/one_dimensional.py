"""Layers along one axis, as layers in two dimensions of which the second has length 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from torch import nn
from torch.fx import Node

from .graph import owner_of
from .graph_module import GraphModuleWithAttr

__all__ = ["one_dimensional_to_two"]


def _pair(value: Any, other: int) -> tuple[int, int]:
    return (int(value[0] if isinstance(value, tuple | list) else value), other)


def _conv(layer: Any) -> nn.Module:
    padding = layer.padding if isinstance(layer.padding, str) else _pair(layer.padding, 0)
    made = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        _pair(layer.kernel_size, 1),
        _pair(layer.stride, 1),
        padding,
        _pair(layer.dilation, 1),
        layer.groups,
        layer.bias is not None,
        layer.padding_mode,
        device="meta",
    )
    made.weight, made.bias = nn.Parameter(layer.weight.detach().unsqueeze(-1).clone()), layer.bias
    return made


def _max_pool(layer: Any) -> nn.Module:
    sizes = (_pair(getattr(layer, name), other) for name, other in _POOL)
    return nn.MaxPool2d(*sizes, _pair(layer.dilation, 1), layer.return_indices, layer.ceil_mode)


def _avg_pool(layer: Any) -> nn.Module:
    sizes = (_pair(getattr(layer, name), other) for name, other in _POOL)
    return nn.AvgPool2d(*sizes, layer.ceil_mode, layer.count_include_pad)


def _adaptive_avg_pool(layer: Any) -> nn.Module:
    return nn.AdaptiveAvgPool2d(_pair(layer.output_size, 1))


_POOL: Final = (("kernel_size", 1), ("stride", 1), ("padding", 0))

_TWO_DIMENSIONAL: Final[Mapping[type[nn.Module], Callable[[Any], nn.Module]]] = {
    nn.Conv1d: _conv,
    nn.MaxPool1d: _max_pool,
    nn.AvgPool1d: _avg_pool,
    nn.AdaptiveAvgPool1d: _adaptive_avg_pool,
}
"""Layer along one axis -> makes the layer in two dimensions. A convolution gets a weight of its own."""


def one_dimensional_to_two(gm: GraphModuleWithAttr) -> None:
    """Replace layers along one axis, in place. They take the place of the layer in the tree.

    Given:  `conv = self.conv(x)`, a Conv1d
    Result: `unsqueeze = x.unsqueeze(-1);  conv = self.conv(unsqueeze);  squeeze = conv.squeeze(-1)`, a Conv2d
    """
    modules = dict(gm.named_modules(remove_duplicate=False))
    made: dict[int, nn.Module] = {}
    for node in list(gm.graph.nodes):
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        make = _TWO_DIMENSIONAL.get(type(layer)) if layer is not None else None
        if layer is None or make is None:
            continue
        if id(layer) not in made:
            made[id(layer)] = make(layer).train(layer.training)
        _replace(gm, node, made[id(layer)])
    if made:
        gm.recompile()


def _replace(gm: GraphModuleWithAttr, node: Node, layer: nn.Module) -> None:
    parent, _, name = str(node.target).rpartition(".")
    setattr(gm.get_submodule(parent), name, layer)
    with gm.graph.inserting_before(node):
        unsqueezed = gm.graph.call_method("unsqueeze", (node.args[0], -1))
    with gm.graph.inserting_after(node):
        squeezed = gm.graph.call_method("squeeze", (node, -1))
    node.replace_all_uses_with(squeezed)
    squeezed.args = (node, -1)
    node.args = (unsqueezed, *node.args[1:])
    for each in (unsqueezed, squeezed):
        each.meta["owner"] = owner_of(node)
