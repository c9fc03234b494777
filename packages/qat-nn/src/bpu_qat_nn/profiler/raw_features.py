"""``get_raw_features``: the tensors that go into the modules of a model and come out, with their scales."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from bpu_kernels.dtypes import qint8

from ..ops.weighted.layer import WeightedQAT, WeightedQuantized
from ..qtensor import QTensor
from .devices import inputs_on, on_device
from .record import Call, record

__all__ = ["RawFeature", "get_raw_features"]


class RawFeature(TypedDict):
    """One tensor; the first six keys are documented."""

    module_name: str
    """Path, as of ``featuremap_similarity``."""
    attr: str
    """ "input", "output", "weight" or "bias"; with several inputs "input-0", "input-1", and so on."""
    data: Tensor
    """Real values; the integers of a quantized tensor if they were asked for."""
    scale: Tensor | None
    """[1], or [C] along ``ch_axis``; None for a real tensor."""
    ch_axis: int
    """Axis of a scale per channel; -1 for one scale, or none."""
    ff_method: str | None
    """Which method of a FloatFunctional was called."""
    module_type: str
    """Class of the module, or name of the function."""
    dtype: str
    """ "qint8" and the like; of a real tensor torch's type."""


def get_raw_features(
    model: nn.Module,
    example_inputs: Any,
    prefixes: tuple[str, ...] = (),
    types: tuple[type[nn.Module], ...] = (),
    device: torch.device | str | None = None,
    preserve_int: bool = False,
    use_class_name: bool = False,
    skip_identity: bool = False,
) -> list[RawFeature]:
    """Run a model and return inputs, outputs and parameters of its modules and functions, in order of execution.

    Args:
        model: of any stage; afterwards as it was before.
        example_inputs: a tensor, a tuple of what forward takes, or a dict of it by name.
        prefixes: only places whose path starts so; all if empty.
        types: only modules of exactly these classes; all if empty. With both, either is enough.
        device: where the model runs; None: where it is.
        preserve_int: give the integers of quantized tensors instead of their real values.
        use_class_name: name the places by class instead of path.
        skip_identity: leave out nn.Identity.
    """
    with on_device(model, device):
        calls = record(model, inputs_on(example_inputs, device)).calls
    found: list[RawFeature] = []
    for call in calls:
        chosen = call.path.startswith(prefixes) if prefixes else False
        chosen = chosen or type(call.module) in types or not (prefixes or types)
        if chosen and not (skip_identity and isinstance(call.module, nn.Identity)):
            found += _features(call, call.kind if use_class_name else call.label, preserve_int)
    return found


def _features(call: Call, name: str, preserve_int: bool) -> Iterator[RawFeature]:
    for attr, tensors in (("input", call.inputs), ("output", call.outputs)):
        for index, tensor in enumerate(tensors):
            yield _feature(call, name, attr if len(tensors) == 1 else f"{attr}-{index}", tensor, preserve_int)
    if call.number == 0:
        for attr, tensor in _parameters(call.module):
            yield _feature(call, name, attr, tensor, preserve_int)


def _parameters(module: nn.Module | None) -> Iterator[tuple[str, Tensor]]:
    """Yield weight and bias of a module as they are stored; of a quantized layer the weight with its scales."""
    if isinstance(module, WeightedQuantized):
        whole = QTensor(module.canonical(module.weight), module.weight_scale, None, qint8, _axis(module.weight_scale))
        yield "weight", whole
    layer = getattr(module, "conv", module)
    for attr in ("weight", "bias"):
        value = getattr(layer, attr, None)
        if not isinstance(value, Tensor) or (attr == "weight" and isinstance(module, WeightedQuantized)):
            continue
        if attr == "weight" and isinstance(module, WeightedQAT):
            fake = module.weight_fake_quant
            axis = _axis(fake.scale)
            yield (
                attr,
                QTensor(module.canonical(value.detach()), fake.scale.detach(), None, fake.dtype, axis, on_grid=False),
            )
        else:
            yield attr, value.detach()


def _axis(scale: Tensor) -> int:
    return 0 if scale.numel() > 1 else -1


def _feature(call: Call, name: str, attr: str, tensor: Tensor, preserve_int: bool) -> RawFeature:
    quantized = tensor if isinstance(tensor, QTensor) else None
    data = tensor
    if quantized is not None:
        data = quantized.int_repr() if preserve_int and quantized.on_grid else quantized.dequantize()
    return RawFeature(
        module_name=name,
        attr=attr,
        data=data,
        scale=None if quantized is None else quantized.scale.detach(),
        ch_axis=-1 if quantized is None else quantized.per_channel_axis,
        ff_method=call.method,
        module_type=call.kind,
        dtype=str(tensor.dtype),
    )
