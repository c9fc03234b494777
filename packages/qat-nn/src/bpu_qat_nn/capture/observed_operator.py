"""A model under calibration or training as one operator of torch, ``torch.ops.bpu_qat_nn.observed``.

It runs the model as it is at that time: its state, its observers, the passes of the native engine. Where a gradient is
wanted, autograd records the model inside the operator, and ``observed_backward`` goes through that record.
"""

from __future__ import annotations

import copy
import itertools
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from bpu_qconfig import FakeQuantize

from ..errors import CaptureError
from ..qtensor import QTensor
from .model_operator import PARTS, call, fresh, model_of, take_apart

__all__ = ["kept_records", "place_of_call"]

_torch: Any = torch._C


class _Record(bytearray):
    """What autograd recorded of a call. It is the memory of a tensor, and so lives as long as that."""

    values: list[Tensor]
    """The results."""
    leaves: list[Tensor]
    """What gradients are wanted of."""


_records: weakref.WeakValueDictionary[int, _Record] = weakref.WeakValueDictionary()
_keys = itertools.count(1)
_places = itertools.count(1)


@contextmanager
def _recording() -> Iterator[None]:
    """Let autograd record inside an operator, where torch keeps it away."""
    excluded = _torch._dispatch_tls_local_exclude_set()
    for name in ("AutogradFunctionality", "AutogradOther", "AutogradNestedTensor", "ADInplaceOrView"):
        excluded = excluded.remove(getattr(_torch.DispatchKey, name))
    with _torch._ForceDispatchKeyGuard(_torch._dispatch_tls_local_include_set(), excluded), torch.enable_grad():
        yield


def _observed(
    number: int, inputs: list[Tensor], names: list[str], parameters: list[Tensor], needed: list[int], place: int
) -> tuple[list[Tensor], Tensor]:
    """Run the model.

    Args:
        number: of the model.
        inputs: what forward takes, the last of them by name.
        names: their names.
        parameters: all that are trained, if autograd is to record; the model's own.
        needed: indices of the inputs that a gradient is wanted of.
        place: of the call, a number of its own: compilers take equal calls for one.

    Returns:
        the results, quantized ones as real values, and the memory of the record.
    """
    model = model_of(number)
    if not parameters and not needed:
        with torch.no_grad():
            return fresh(_reals(call(model, inputs, names)), inputs), torch.zeros(1, dtype=torch.int64)
    own = [each for each in model.parameters() if each.requires_grad]
    if [each.data_ptr() for each in own] != [each.data_ptr() for each in parameters]:
        raise CaptureError("compiled code gave a model other parameters than its own; call it uncompiled to do so")
    record = _Record(next(_keys).to_bytes(8, "little"))
    with _recording():
        given = [x.detach().requires_grad_(index in needed) for index, x in enumerate(inputs)]
        record.values = _reals(call(model, given, names))
    record.leaves = [*(given[index] for index in needed), *own]
    memory = torch.frombuffer(record, dtype=torch.int64)
    _records[int(memory)] = record
    return fresh([value.detach() for value in record.values], inputs), memory


def place_of_call() -> int:
    """Return a number that no other call has."""
    return next(_places)


def _reals(result: Any) -> list[Tensor]:
    return [x.dequantize() if isinstance(x, QTensor) else x for x in take_apart(result)[0]]


def kept_records() -> int:
    """Return how many calls are recorded and can be gone through backwards."""
    return len(_records)


def _observed_backward(memory: Tensor, gradients: list[Tensor], leaves: list[Tensor]) -> list[Tensor]:
    record = _records[int(memory)]
    pairs = [pair for pair in zip(record.values, gradients, strict=True) if pair[0].requires_grad]
    with _recording():
        found: Any = torch.autograd.grad(
            [value for value, _ in pairs], record.leaves, [gradient for _, gradient in pairs], allow_unused=True
        )
    made = [torch.zeros_like(leaf) if each is None else each for each, leaf in zip(found, record.leaves, strict=True)]
    return fresh(made, gradients)


_Kind = tuple[tuple[int, ...], torch.dtype, torch.device]
"""What is known of a tensor without its contents."""
_kinds: weakref.WeakKeyDictionary[nn.Module, dict[Any, list[_Kind]]] = weakref.WeakKeyDictionary()
"""Model -> inputs -> results."""


def _fake(
    number: int, inputs: list[Tensor], names: list[str], parameters: list[Tensor], needed: list[int], place: int
) -> tuple[list[Tensor], Tensor]:
    model = model_of(number)
    kinds = [(tuple(int(n) for n in x.shape), x.dtype, x.device) for x in inputs]
    known = _kinds.setdefault(model, {})
    key = (*kinds, *names)
    if key not in known:
        known[key] = _dry_run(model, kinds, names)
    values = [torch.empty(shape, dtype=dtype, device=device) for shape, dtype, device in known[key]]
    return values, torch.empty(1, dtype=torch.int64)


def _dry_run(model: nn.Module, inputs: list[_Kind], names: list[str]) -> list[_Kind]:
    """Return what a model gives, by running a copy of it that neither observes nor quantizes."""
    with _disable_current_modes(), torch.no_grad():
        dry = copy.deepcopy(model).eval()
        for module in dry.modules():
            if isinstance(module, FakeQuantize):
                module.disable_observer()
                module.disable_fake_quant()
        values, PARTS[model] = take_apart(call(dry, [torch.zeros(s, dtype=t, device=d) for s, t, d in inputs], names))
    return [(tuple(x.shape), torch.float32 if isinstance(x, QTensor) else x.dtype, x.device) for x in values]


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    _, tensors, ctx.names, parameters, needed, _ = inputs
    ctx.inputs, ctx.needed = len(tensors), needed
    ctx.save_for_backward(output[1], *(tensors[index] for index in needed), *parameters)


def _backward(ctx: Any, gradients: list[Tensor], _: Any) -> tuple[Any, ...]:
    memory, *leaves = ctx.saved_tensors
    found = torch.ops.bpu_qat_nn.observed_backward(memory, gradients, leaves)
    of_inputs: list[Tensor | None] = [None] * ctx.inputs
    for index, gradient in zip(ctx.needed, found[: len(ctx.needed)], strict=True):
        of_inputs[index] = gradient
    names, needed = (_no_gradient(each) for each in (ctx.names, ctx.needed))
    return None, of_inputs, names, found[len(ctx.needed) :], needed, None


def _no_gradient(values: list[Any]) -> list[Any] | None:
    """Return what stands for the gradient of a list that has none; of an empty one torch takes no None."""
    return None if values else []


_library: Any = torch.library.Library("bpu_qat_nn", "FRAGMENT")  # type: ignore[no-untyped-call]


def _register() -> None:
    _library.define(
        "observed(int number, Tensor[] inputs, str[] names, Tensor[] parameters, int[] needed, int place) "
        "-> (Tensor[], Tensor)"
    )
    _library.impl("observed", _observed, "CompositeExplicitAutograd")
    torch.fx.node.has_side_effect(torch.ops.bpu_qat_nn.observed.default)  # observers see it, wanted or not
    torch.library.register_fake("bpu_qat_nn::observed", _fake, lib=_library)
    torch.library.register_autograd("bpu_qat_nn::observed", _backward, setup_context=_keep, lib=_library)
    _library.define("observed_backward(Tensor memory, Tensor[] gradients, Tensor[] leaves) -> Tensor[]")
    _library.impl("observed_backward", _observed_backward, "CompositeExplicitAutograd")
    torch.library.register_fake(
        "bpu_qat_nn::observed_backward",
        lambda memory, gradients, leaves: [
            torch.empty(leaf.shape, dtype=leaf.dtype, device=leaf.device) for leaf in leaves
        ],
        lib=_library,
    )


_register()
