"""Captured forms of a converted model: calls of ``torch.ops.bpu`` on ordinary tensors, for torch's own tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_map

from ..errors import CaptureError
from ..preserve import preserved_paths
from .captured_tensor import capture_scope

if TYPE_CHECKING:
    from ..graph_module import QuantizedGraphModule

__all__ = ["captured_call", "plain_module"]


def plain_module(quantized: QuantizedGraphModule, *example_inputs: Any) -> GraphModule:
    """Return a converted model as an ordinary module with the same integers, for ``torch.export`` and the like.

    It calls ``torch.ops.bpu``, one operator for each of the integer arithmetic, whose parameters are its buffers. It
    holds for inputs of these shapes, and for the weights and scales that the model has now.

    Args:
        quantized: made by ``convert_fx``.
        example_inputs: what forward takes; QTensors among its results become their integers.
    """
    with torch.no_grad():
        captured: GraphModule = make_fx(lambda *inputs: captured_call(quantized, inputs, {}))(*example_inputs)
    for name, value in list(vars(captured).items()):
        if isinstance(value, Tensor):
            delattr(captured, name)
            captured.register_buffer(name, value)
    _name_inputs(captured, [str(node.target) for node in quantized.graph.nodes if node.op == "placeholder"])
    captured.graph.eliminate_dead_code()
    captured.recompile()
    return captured.eval()


def _name_inputs(captured: GraphModule, names: Sequence[str]) -> None:
    """Call the inputs as forward does, where each is one tensor."""
    inputs = [node for node in captured.graph.nodes if node.op == "placeholder"]
    for node, name in zip(inputs, names, strict=True) if len(inputs) == len(names) else ():
        node.target = name
        node.name = name


def captured_call(quantized: QuantizedGraphModule, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Run a model while it is captured; quantized results become their integers."""
    kept = preserved_paths(quantized)
    if kept:
        raise CaptureError(
            f"{', '.join(kept)} stayed under QAT (set_preserve_qat_mode), which nothing captures; convert without that"
        )
    with capture_scope():
        result = quantized(*args, **kwargs)
    return tree_map(lambda leaf: leaf, result)  # which makes their steps of CapturedTensors
