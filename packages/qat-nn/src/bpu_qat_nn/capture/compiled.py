"""What ``torch.compile``, and ``torch.export`` with ``strict=True``, see of our models; imported by them alone.

``torch.compile`` sees one operator that calls the model (model_operator.py). ``torch.export`` follows a converted model
to the operators of the library (captured_tensor.py). What is here runs as dynamo sees it, so it holds to the Python
that dynamo knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import CaptureError
from ..graph_module import LIVING
from .captured_tensor import exporting
from .model_operator import number_of, part_of_result, traced_call
from .observed_operator import place_of_call

if TYPE_CHECKING:
    from ..graph_module import ObservedGraphModule, QuantizedGraphModule

__all__ = ["compiled_call", "observed_call", "uncompiled_call"]

_Call = Callable[[Any, Any, Mapping[str, Any]], Any]

_dynamo: Any = torch.compiler
_constant = _dynamo.assume_constant_result
"""Calls a function once, when the code around it is compiled."""
_number: Callable[[int], int] = _constant(lambda identity: number_of(LIVING[identity]))
_place: Callable[[], int] = _constant(place_of_call)
_part: Callable[[int, str], str] = _constant(part_of_result)
_exporting: Callable[[], bool] = _constant(lambda: exporting())
"""Whether torch.export is at work; asked outside of what dynamo follows, where torch 2.9 says so of all it compiles."""
_traced: Callable[[int, Sequence[Tensor], Sequence[str]], list[Tensor]] = _dynamo.allow_in_graph(traced_call)


def compiled_call(quantized: QuantizedGraphModule, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Call a converted model from code that is being compiled; quantized results become their integers."""
    inputs = [*args, *kwargs.values()]
    if not all(isinstance(x, Tensor) for x in inputs):
        if _exporting():
            raise CaptureError("with strict=True, inputs of a converted model must be tensors; take strict=False")
        return uncompiled_call(quantized, args, kwargs)
    number = _number(id(quantized))
    function = _traced if _exporting() else torch.ops.bpu_qat_nn.converted
    return _rebuilt(number, "", function(number, inputs, list(kwargs)))


def observed_call(observed: ObservedGraphModule, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Call a model under calibration or training from code that is being compiled; its results are real values."""
    inputs = [*args, *kwargs.values()]
    if _exporting() or _casts() or not all(isinstance(x, Tensor) for x in inputs):
        return uncompiled_call(observed, args, kwargs)
    number, records = _number(id(observed)), torch.is_grad_enabled()
    needed = [index for index, x in enumerate(inputs) if records and x.requires_grad]
    parameters = [each for each in observed.parameters() if records and each.requires_grad]
    values, _ = torch.ops.bpu_qat_nn.observed(number, inputs, list(kwargs), parameters, needed, _place())
    return _rebuilt(number, "", values)


def _casts() -> bool:
    return torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")


def _rebuilt(number: int, path: str, values: Sequence[Tensor]) -> Any:
    """Return a part of a model's result made of its tensors."""
    kind, *names = _part(number, path).split("\n")
    if kind.isdigit():
        return values[int(kind)]
    parts = [_rebuilt(number, f"{path}/{name}", values) for name in names]
    if kind == "dict":
        return dict(zip(names, parts, strict=True))
    return None if kind == "NoneType" else tuple(parts) if kind == "tuple" else parts


def _uncompiled_call(model: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    return model(*args, **kwargs)


uncompiled_call: _Call = _dynamo.disable(_uncompiled_call)
"""Calls a model; the code around it is compiled, and the compiler stops before it."""
