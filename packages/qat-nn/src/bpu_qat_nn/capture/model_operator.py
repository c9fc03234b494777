"""A converted model as one operator of torch, ``torch.ops.bpu_qat_nn.converted``: what compiled code calls.

The operator is told by a number which model it is, and runs it as it is at that time: scales and weights that were
edited count, and the layers run on the native engine. Numbers are random, so compiled code that another process left on
disk names no model of this one.
"""

from __future__ import annotations

import secrets
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes

from ..errors import CaptureError
from ..qtensor import QTensor
from .plain import captured_call

__all__ = ["PARTS", "call", "fresh", "model_of", "number_of", "part_of_result", "take_apart", "traced_call"]

_numbers: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()
_models: weakref.WeakValueDictionary[int, nn.Module] = weakref.WeakValueDictionary()
PARTS: weakref.WeakKeyDictionary[nn.Module, dict[str, str]] = weakref.WeakKeyDictionary()
"""Model -> what its result was made of when it was last looked at without running it: path -> kind and names."""


def number_of(model: nn.Module) -> int:
    """Return the number by which the operator knows a model."""
    number = _numbers.setdefault(model, secrets.randbits(62))
    _models[number] = model
    return number


def model_of(number: int) -> Any:
    """Return the model of a number.

    Raises:
        CaptureError: it is gone, or was compiled in another process.
    """
    model = _models.get(number)
    if model is None:
        raise CaptureError(
            "this compiled code calls a model that is not in memory; compile it again in the process that runs it, or "
            "save what torch.export makes of the model"
        )
    return model


def call(model: Any, inputs: Sequence[Tensor], names: Sequence[str]) -> Any:
    """Call a model; the last inputs are given by name."""
    count = len(inputs) - len(names)
    return model(*inputs[:count], **dict(zip(names, inputs[count:], strict=True)))


def take_apart(result: Any) -> tuple[list[Tensor], dict[str, str]]:
    """Return the tensors of a model's result, and by path what the result is made of.

    Raises:
        CaptureError: it is made of something else than tensors, None, and lists, tuples and dicts of these.
    """
    values: list[Tensor] = []
    parts: dict[str, str] = {}

    def visit(part: Any, path: str) -> None:
        if isinstance(part, Tensor):
            parts[path] = str(len(values))
            values.append(part)
        elif part is None or type(part) in (list, tuple, dict):
            names = [] if part is None else [str(name) for name in (part if type(part) is dict else range(len(part)))]
            parts[path] = "\n".join([type(part).__name__, *names])
            for name, each in zip(names, part.values() if type(part) is dict else part or (), strict=True):
                visit(each, f"{path}/{name}")
        else:
            raise CaptureError(
                f"a compiled model returned {type(part).__name__}; expected tensors, or lists, tuples and dicts of them"
            )

    visit(result, "")
    return values, parts


def part_of_result(number: int, path: str) -> str:
    """Return what a part of a model's result is: a value's index, or NoneType, list, tuple or dict, and its names."""
    return PARTS[model_of(number)][path]


def traced_call(number: int, inputs: Sequence[Tensor], names: Sequence[str]) -> list[Tensor]:
    """Call a converted model while its operators are traced; quantized results become their integers."""
    model = model_of(number)
    count = len(inputs) - len(names)
    result = captured_call(model, inputs[:count], dict(zip(names, inputs[count:], strict=True)))
    values, PARTS[model] = take_apart(result)
    return values


def _converted(number: int, inputs: list[Tensor], names: list[str]) -> list[Tensor]:
    values, _ = take_apart(call(model_of(number), inputs, names))
    return fresh([x.int_repr() if isinstance(x, QTensor) else x for x in values], inputs)


def fresh(values: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the values in memory of their own, contiguous, as operators must."""
    taken = {x.untyped_storage().data_ptr() for x in inputs}
    made = []
    for value in values:
        own = value.contiguous()
        made.append(own.clone() if own.untyped_storage().data_ptr() in taken else own)
        taken.add(own.untyped_storage().data_ptr())
    return made


def _shapes(number: int, inputs: list[Tensor], names: list[str]) -> list[Tensor]:
    with _disable_current_modes(), FakeTensorMode(allow_non_fake_inputs=True):
        like = [torch.empty([int(n) for n in x.shape], dtype=x.dtype, device=x.device) for x in inputs]
        values = traced_call(number, like, names)
    return [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in values]


_library: Any = torch.library.Library("bpu_qat_nn", "FRAGMENT")  # type: ignore[no-untyped-call]


def _register() -> None:
    _library.define("converted(int number, Tensor[] inputs, str[] names) -> Tensor[]")
    _library.impl("converted", _converted, "CompositeExplicitAutograd")
    torch.library.register_fake("bpu_qat_nn::converted", _shapes, lib=_library)


_register()
