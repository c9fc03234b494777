"""Run the Program of a stage on torch tensors: integers in, integers or their real values out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_with_path

import bpu_kernels
from bpu_kernels import Program
from bpu_qat_nn import QTensor

from ..lowering.leaf_names import leaf_name
from ..lowering.lower import torch_outputs
from .ports import Port, named_tensors, program_inputs

__all__ = ["run_stage", "stored_inputs"]


def run_stage(program: Program, given: Mapping[str, Any], example: Mapping[str, Any], backend: str) -> dict[str, Any]:
    """Return what the stage's module returns.

    Args:
        program: of the stage.
        given: inputs by name; QTensors hand over their integers, real tensors are quantized.
        example: outputs of the module by name, which tell structure and kinds.
        backend: a name in ``bpu_kernels.BACKENDS``.
    """
    stored = bpu_kernels.run(program, stored_inputs(program, given), backend=backend)
    integers, reals = torch_outputs(program, stored, dequantized=False), torch_outputs(program, stored)

    def computed(path: Any, leaf: Any) -> Any:
        name = leaf_name(path)
        if isinstance(leaf, QTensor):
            return QTensor(integers[name], leaf.scale, None, leaf.dtype, leaf.per_channel_axis)
        return reals.get(name, leaf)

    result: dict[str, Any] = tree_map_with_path(computed, dict(example))
    return result


def stored_inputs(program: Program, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the integers of a Program's inputs as they lie in memory.

    Args:
        program: made by ``lower``.
        given: what forward takes by name; QTensors hand over their integers, real tensors are quantized.
    """
    tensors = {name: tensor for key, value in given.items() for name, tensor in named_tensors(key, value).items()}
    return {port.name: _stored(port, tensors[port.name]) for port in program_inputs(program)}


def _stored(port: Port, tensor: Tensor) -> np.ndarray:
    """Return the integers of an input as they lie in memory."""
    assert port.order is not None
    if isinstance(tensor, QTensor):
        steps = tensor.int_repr()
    else:
        dtype, scale = bpu_kernels.quant_dtype(port.dtype), torch.tensor(port.scale, dtype=torch.float32).reshape(())
        steps = (tensor.to(torch.float32) / scale).round().clamp(dtype.min, dtype.max)
        steps = steps.to(getattr(torch, f"int{dtype.bits}"))
    return np.ascontiguousarray(steps.permute(port.order).numpy())
