"""``check_qconfig``: types of inputs, outputs and weights of a prepared model, and what of it may not be meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from bpu_kernels.dtypes import qint16, qint32
from bpu_kernels.whole_file import expect_folder
from bpu_qconfig import FakeQuantize, FixedScaleObserver

from ..errors import ArgumentError
from ..ops.stubs import QATDeQuantStub
from ..ops.weighted.layer import WeightedQAT
from ..qat_module import QATModule
from ..qtensor import QTensor
from ..text_table import text_table, write_text
from .record import Call, record

__all__ = ["QConfigInfo", "check_qconfig"]

_LAYERS = ("Module Name", "Module Type", "Input dtype", "out dtype", "ch_axis")
_WEIGHTS = ("Module Name", "Module Type", "weight dtype", "ch_axis")


@dataclass(frozen=True, kw_only=True)
class QConfigInfo:
    """What ``check_qconfig`` found; prints as two tables and the messages."""

    layers: tuple[tuple[str, ...], ...]
    """For each call name, class, types of the inputs, type of the output, axis of its channels' scales."""
    weights: tuple[tuple[str, ...], ...]
    """For each layer with weights name, class, type, axis."""
    messages: tuple[tuple[str, str, str], ...]
    """Name, class, and what to check."""

    def __str__(self) -> str:
        parts = [
            f"Each layer out qconfig:\n{text_table(_LAYERS, self.layers)}",
            f"Weight qconfig:\n{text_table(_WEIGHTS, self.weights)}",
        ]
        if self.messages:
            headings = ("Module Name", "Module Type", "Msg")
            shown = text_table(headings, self.messages)
            parts.append(f"Please check if these OPs qconfigs are expected..\n{shown}")
        return "\n\n".join(parts)


def check_qconfig(
    model: nn.Module,
    example_inputs: Any,
    prefixes: tuple[str, ...] = (),
    types: tuple[type[nn.Module], ...] = (),
    custom_check_func: Callable[[nn.Module, Any, Any], Any] | None = None,
    out_dir: str | None = None,
) -> QConfigInfo:
    """Return how each module is quantized, and what may not be meant.

    The messages name outputs that are not rounded, fixed scales, weights of 16 bits, and operators whose output has
    another type than their inputs.

    Args:
        model: prepared, in any state; afterwards as it was before.
        example_inputs: a tensor, a tuple of what forward takes, or a dict of it by name.
        prefixes: only modules whose path starts so; all if empty.
        types: only modules of exactly these classes; all if empty. With both, either is enough.
        custom_check_func: called for each of these modules as forward hooks are, with module, inputs and output; what
            it returns, if not None, becomes a message.
        out_dir: folder for qconfig_info.txt; None writes nothing.

    Raises:
        ArgumentError: the model has no modules under QAT.
    """
    expect_folder(out_dir)
    if not any(isinstance(module, QATModule) for module in model.modules()):
        raise ArgumentError("expected a model that prepare_qat_fx or prepare_qat returned: others have no qconfigs")
    calls = [call for call in record(model, example_inputs).calls if _chosen(call, prefixes, types)]
    messages = [(call.label, call.kind, message) for call in calls for message in _messages(call)]
    for call in calls if custom_check_func is not None else ():
        assert custom_check_func is not None
        message = custom_check_func(call.module, call.args, call.result)  # type: ignore[arg-type]
        if message is not None:
            messages.append((call.label, call.kind, str(message)))
    info = QConfigInfo(
        layers=tuple(map(_layer, calls)),
        weights=tuple(dict.fromkeys(row for call in calls for row in _weights(call))),
        messages=tuple(dict.fromkeys(messages)),
    )
    if out_dir is not None:
        write_text(Path(out_dir, "qconfig_info.txt"), info)
    return info


def _chosen(call: Call, prefixes: tuple[str, ...], types: tuple[type[nn.Module], ...]) -> bool:
    if not isinstance(call.module, QATModule):
        return False
    named = bool(prefixes) and call.path.startswith(prefixes)
    return named or type(call.module) in types or not (prefixes or types)


def _dtypes(tensors: list[Any]) -> list[str]:
    return [str(each.dtype) for each in tensors]


def _layer(call: Call) -> tuple[str, ...]:
    axes = [each.per_channel_axis for each in call.outputs if isinstance(each, QTensor)]
    shown = ", ".join(map(str, axes)) or "-"
    return call.label, call.kind, ", ".join(_dtypes(call.inputs)), ", ".join(_dtypes(call.outputs)), shown


def _weights(call: Call) -> Iterator[tuple[str, ...]]:
    if isinstance(call.module, WeightedQAT):
        fake = call.module.weight_fake_quant
        yield call.path, call.kind, str(fake.dtype), str(fake.ch_axis)


def _messages(call: Call) -> Iterator[str]:
    module: Any = call.module
    if isinstance(module, QATDeQuantStub):
        return
    outputs = [each for each in call.outputs if isinstance(each, QTensor)]
    if len(outputs) < len(call.outputs) or any(each.dtype is qint32 for each in outputs):
        yield "output not quantized"
    fake: FakeQuantize | None = module.activation_post_process
    if fake is not None and isinstance(fake.activation_post_process, FixedScaleObserver):
        yield f"Fixed scale {fake.scale.tolist()}"
    if isinstance(module, WeightedQAT) and module.weight_fake_quant.dtype is qint16:
        yield "qint16 weight!!!"
    if outputs and outputs[0].dtype is not qint32:
        for other in dict.fromkeys(x.dtype for x in call.inputs if isinstance(x, QTensor)):
            if other is not outputs[0].dtype:
                yield f"input dtype {other} is not same with out dtype {outputs[0].dtype}"
