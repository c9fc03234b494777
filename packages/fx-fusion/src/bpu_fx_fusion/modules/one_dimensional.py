"""Layers along one axis, as layers in two dimensions of which the second has length 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from torch import nn
from torch.fx import Node

from ..graph.graph_module import GraphModuleWithAttr
from ..graph.nodes import owner_of

__all__ = ["batch_norm_of_maps", "one_dimensional_to_two", "type_as_written"]


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
    weight = layer.weight.detach().unsqueeze(-1).clone()
    made.weight, made.bias = nn.Parameter(weight, requires_grad=layer.weight.requires_grad), layer.bias
    return made


def _max_pool(layer: Any) -> nn.Module:
    kernel, stride, padding = (_pair(getattr(layer, name), other) for name, other in _POOL)
    return nn.MaxPool2d(kernel, stride, padding, _pair(layer.dilation, 1), layer.return_indices, layer.ceil_mode)


def _avg_pool(layer: Any) -> nn.Module:
    kernel, stride, padding = (_pair(getattr(layer, name), other) for name, other in _POOL)
    return nn.AvgPool2d(kernel, stride, padding, layer.ceil_mode, layer.count_include_pad)


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


def batch_norm_of_maps(layer: Any) -> nn.Module:
    """Return a BatchNorm2d with the very tensors of another BatchNorm."""
    made = nn.BatchNorm2d(layer.num_features, layer.eps, layer.momentum)
    made._parameters.update(layer._parameters)
    made._buffers.update(layer._buffers)
    return made.train(layer.training)


def type_as_written(module: nn.Module) -> type[nn.Module]:
    """Return the type that a module had before `one_dimensional_to_two`."""
    found: type[nn.Module] = vars(module).get("written_as", type(module))
    return found


def one_dimensional_to_two(gm: GraphModuleWithAttr) -> bool:
    """Replace layers along one axis, in place; return whether there are any. They take the layer's place in the tree.

    A BatchNorm1d behind such a layer comes along, so that the two can be fused.

    Given:  `conv = self.conv(x)`, a Conv1d
    Result: `unsqueeze = x.unsqueeze(-1);  conv = self.conv(unsqueeze);  squeeze = conv.squeeze(-1)`, a Conv2d
    """
    modules = dict(gm.named_modules(remove_duplicate=False))
    made: dict[int, nn.Module] = {}
    flattened: dict[Node, Node] = {}
    for node in list(gm.graph.nodes):
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        make = _TWO_DIMENSIONAL.get(type(layer)) if layer is not None else None
        if type(layer) is nn.BatchNorm1d and _source(node) in flattened:
            make = batch_norm_of_maps
        if layer is None or make is None:
            continue
        if id(layer) not in made:
            made[id(layer)] = _in_place_of(layer, make(layer))
        flattened[_replace(gm, node, made[id(layer)], flattened)] = node
    for squeezed in reversed(flattened):
        if not squeezed.users:
            gm.graph.erase_node(squeezed)
    gm.recompile()
    return bool(made)


def _source(node: Node) -> Any:
    return node.args[0] if node.args else node.kwargs["input"]


_SET_BY_USERS = ("qconfig", "preserve_qat_mode")
"""Attributes of a layer that say how it shall be quantized."""


def _in_place_of(layer: nn.Module, made: nn.Module) -> nn.Module:
    """Give a module what the user set on the layer whose place it takes."""
    vars(made)["written_as"] = type(layer)
    for name in _SET_BY_USERS:
        if hasattr(layer, name):
            vars(made)[name] = getattr(layer, name)
    return made.train(layer.training)


def _replace(gm: GraphModuleWithAttr, node: Node, layer: nn.Module, flattened: Mapping[Node, Node]) -> Node:
    """Put the layer in place; return the node that gives what the old layer gave."""
    parent, _, name = str(node.target).rpartition(".")
    setattr(gm.get_submodule(parent), name, layer)
    source = _source(node)
    with gm.graph.inserting_before(node):
        unsqueezed = flattened.get(source) or gm.graph.call_method("unsqueeze", (source, -1))
    with gm.graph.inserting_after(node):
        squeezed = gm.graph.call_method("squeeze", (node, -1))
    node.replace_all_uses_with(squeezed)
    squeezed.args = (node, -1)
    node.args, node.kwargs = (unsqueezed,), {}
    for each in (unsqueezed, squeezed):
        each.meta.setdefault("owner", owner_of(node))
    return squeezed
